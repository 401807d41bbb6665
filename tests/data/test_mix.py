from __future__ import annotations

import numpy as np
import pytest

from tracesight.data.mix import Mix


def batch(count: int = 8, side: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture i is i everywhere and shows category i."""
    images = np.zeros((count, side, side, 3), np.float32) + np.arange(count, dtype=np.float32)[:, None, None, None]
    return images, np.eye(count, dtype=np.float32), np.array([[5, 40 + i] for i in range(count)])


@pytest.mark.parametrize("mix", [Mix(mixup=0.8), Mix(cutmix=1.0), Mix(mixup=0.2, cutmix=1.0)])
def test_pixels_and_labels_are_shared_alike(mix):
    images, shares, keys = batch(64)
    mix(images, shares, keys)
    assert np.allclose(shares.sum(1), 1)
    # The mean of a picture is what its labels say that it is made of.
    assert np.allclose(images.mean((1, 2, 3)), shares @ np.arange(64), atol=1e-3)
    assert all(set(np.flatnonzero(row)) <= {i, i ^ 1} for i, row in enumerate(shares))
    assert shares.diagonal().std() > 0.15
    blended = np.array([len(np.unique(image)) == 1 for image in images])
    assert blended.all() == (mix.cutmix == 0)
    assert 12 < blended.sum() < 60 or not (mix.mixup and mix.cutmix)


def test_a_pair_is_mixed_alike_in_any_batch():
    for mix in (Mix(mixup=0.4), Mix(cutmix=1.0)):
        whole, whole_shares, keys = batch(8)
        part, part_shares, _ = batch(8)
        mix(whole, whole_shares, keys)
        mix(part[4:], part_shares[4:], keys[4:])
        assert np.array_equal(whole[4:], part[4:]) and np.array_equal(whole_shares[4:], part_shares[4:])


def test_shares_are_beta_distributed():
    shares = []
    for draw in range(0, 4000, 2):
        images, labels = np.zeros((2, 2, 2, 1), np.float32), np.eye(2, dtype=np.float32)
        Mix(mixup=0.5)(images, labels, np.array([[0, draw], [0, draw + 1]]))
        shares.append(labels[0, 0])
    expected = np.random.default_rng(0).beta(0.5, 0.5, 20_000)
    assert abs(np.mean(shares) - 0.5) < 0.03
    assert np.abs(np.quantile(shares, [0.1, 0.3, 0.7, 0.9]) - np.quantile(expected, [0.1, 0.3, 0.7, 0.9])).max() < 0.06
