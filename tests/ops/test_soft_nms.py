"""Soft-NMS against the loop of its paper's figure 2."""

from __future__ import annotations

import math

import pytest
import torch

from tracesight.ops.nms import nms
from tracesight.ops.soft_nms import soft_nms


def made(seed: int, pictures: int = 2, count: int = 40):
    torch.manual_seed(seed)
    corner, size = torch.rand(pictures, count, 2) * 60, torch.rand(pictures, count, 2) * 30 + 3
    return (
        torch.cat((corner, corner + size), dim=-1),
        torch.rand(pictures, count),
        torch.randint(1, 4, (pictures, count)),
        torch.rand(pictures, count) < 0.8,
    )


def overlap(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def by_loop(boxes, scores, group, valid, method, iou, sigma, least, most) -> list[tuple[int, float]]:
    boxes, scores, group = boxes.tolist(), scores.tolist(), group.tolist()
    left, taken = {i for i, there in enumerate(valid.tolist()) if there}, []
    while left and len(taken) < most:
        best = max(left, key=lambda i: (scores[i], -i))
        left.remove(best)
        if scores[best] <= least:
            break
        taken.append((best, scores[best]))
        for i in left:
            if group[i] == group[best]:
                share = overlap(boxes[i], boxes[best])
                if method == "gaussian":
                    scores[i] *= math.exp(-(share**2) / sigma)
                elif share > iou:
                    scores[i] *= 1 - share
    return taken


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize(("least", "most"), [(0.0, 40), (0.3, 40), (0.05, 7), (0.9, 50)])
def test_equals_the_loop(method, least, most):
    boxes, scores, group, valid = made(3)
    settings = {"method": method, "iou": 0.3, "sigma": 0.5, "least": least, "max_out": most}
    index, kept, found = soft_nms(boxes, scores, group, valid, **settings)
    assert index.shape == kept.shape == found.shape == (2, most)
    for n in range(2):
        expected = by_loop(boxes[n], scores[n], group[n], valid[n], method, 0.3, 0.5, least, most)
        assert kept[n].tolist() == [i < len(expected) for i in range(most)]
        assert index[n][kept[n]].tolist() == [i for i, _ in expected]
        assert found[n][kept[n]].tolist() == pytest.approx([s for _, s in expected], rel=1e-5)
        assert not index[n][~kept[n]].any() and not found[n][~kept[n]].any()
    assert kept.any()


def test_a_box_that_covers_another_wholly_lowers_it_to_nothing_and_far_ones_stay():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]]])
    scores, group, valid = torch.tensor([[0.9, 0.8, 0.7]]), torch.ones(1, 3).long(), torch.ones(1, 3).bool()
    index, kept, found = soft_nms(
        boxes, scores, group, valid, method="linear", iou=0.5, sigma=0.5, least=0.0, max_out=3
    )  # fmt: skip
    assert (index.tolist(), kept.tolist()) == ([[0, 2, 0]], [[True, True, False]])
    assert found[0].tolist() == pytest.approx([0.9, 0.7, 0.0])
    hard, _ = nms(boxes, scores, group, valid, 0.5, 3)
    assert hard.tolist() == index.tolist()
    other = torch.tensor([[1, 2, 1]])
    assert soft_nms(boxes, scores, other, valid, method="gaussian", iou=0.5, sigma=0.5, least=0, max_out=3)[1].all()


def test_nothing_and_what_is_not_finite():
    boxes, scores, group, valid = made(1, 1, 4)
    settings = {"method": "gaussian", "iou": 0.5, "sigma": 0.5, "least": 0.0, "max_out": 3}
    assert not soft_nms(boxes, scores, group, torch.zeros_like(valid), **settings)[1].any()
    assert soft_nms(boxes[:, :0], scores[:, :0], group[:, :0], valid[:, :0], **settings)[0].shape == (1, 3)
    assert soft_nms(boxes[:0], scores[:0], group[:0], valid[:0], **settings)[2].shape == (0, 3)
    spoilt = boxes.clone()
    spoilt[0, 0, 0], scores[0, 1] = torch.nan, torch.inf
    index, kept, found = soft_nms(spoilt, scores, group, torch.ones_like(valid), **settings)
    assert set(index[kept].tolist()) == {2, 3} and found.isfinite().all()


def test_compiles_and_exports_as_one_graph():
    class Soft(torch.nn.Module):
        def forward(self, boxes, scores, group, valid):
            return soft_nms(boxes, scores, group, valid, method="linear", iou=0.3, sigma=0.5, least=0.1, max_out=9)

    inputs = made(5)
    expected = Soft()(*inputs)
    program = torch.export.export(Soft(), inputs).module()
    assert all(torch.allclose(a, b) for a, b in zip(program(*inputs), expected))
    traced = torch.compile(Soft(), backend="eager", fullgraph=True)
    assert all(torch.allclose(a, b) for a, b in zip(traced(*inputs), expected))
