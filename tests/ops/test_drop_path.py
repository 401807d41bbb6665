from __future__ import annotations

import torch

from tracesight.ops.drop_path import drop_path_scales


def keys(count: int, seed: int = 7) -> torch.Tensor:
    return torch.stack((torch.full((count,), seed), torch.arange(count)), 1)


def test_later_blocks_are_left_out_more_often_and_the_mean_is_1():
    scales = drop_path_scales(keys(20_000), 4, 0.8)
    assert scales.shape == (4, 20_000)
    for block, rate in enumerate((0.2, 0.4, 0.6, 0.8)):
        left_out = (scales[block] == 0).float().mean()
        assert abs(left_out - rate) < 0.015
        assert torch.allclose(scales[block][scales[block] > 0], torch.tensor(1 / (1 - rate)))
        assert abs(scales[block].mean() - 1) < 0.06


def test_blocks_are_independent_and_so_are_seeds():
    scales = drop_path_scales(keys(20_000), 8, 0.5) > 0
    both = (scales[6] & scales[7]).float().mean()
    assert abs(both - scales[6].float().mean() * scales[7].float().mean()) < 0.01
    assert not torch.equal(scales, drop_path_scales(keys(20_000, seed=8), 8, 0.5) > 0)


def test_numbers_belong_to_the_picture():
    scales = drop_path_scales(keys(10), 5, 0.5)
    assert torch.equal(scales[:, [7, 2]], drop_path_scales(keys(10)[[7, 2]], 5, 0.5))


def test_nothing_is_left_out_at_rate_0():
    assert torch.equal(drop_path_scales(keys(10), 5, 0.0), torch.ones(5, 10))
