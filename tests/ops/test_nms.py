"""NMS: torchvision's result in one shape, by every way to it, compiled and exported too."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn
from torchvision.ops import nms as torchvision_nms

import tracesight.ops.nms as module
from tracesight.ops.kernels import nms_cpu
from tracesight.ops.nms import nms

LIMITS = (0.0, 0.1, 0.3, 1 / 3, 0.5, 0.7, 1.0)
WAYS = ("as it is", "sets together", "sweep", "fixpoint")


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Makes `nms` in eager mode on the CPU take one way, whatever the size of a set."""
    if request.param == "sets together":
        monkeypatch.setattr(nms_cpu, "FEW", nms_cpu.PASSES - 1)
        monkeypatch.setattr(nms_cpu, "CALLS", 0)
    elif request.param == "sweep":
        monkeypatch.setattr(nms_cpu, "CALLS", 1_000_000)
        monkeypatch.setattr(nms_cpu, "SMALL", 2)
        monkeypatch.setattr(nms_cpu, "HEAD", 1)
        monkeypatch.setattr(nms_cpu, "STEP", 8)
        monkeypatch.setattr(nms_cpu, "AT_ONCE", 300)
        monkeypatch.setattr(nms_cpu, "WORTH", 1e9)
    elif request.param == "fixpoint":
        monkeypatch.setattr(module, "keep_sets", lambda *inputs: module._fixpoint(*inputs, module._loop))
    return request.param


def expected(boxes, scores, group, valid, iou, max_out):
    """torchvision's loop on each competing set, merged by score; equal scores keep their order."""
    index = torch.zeros(len(boxes), max_out, dtype=torch.int64)
    kept = torch.zeros(len(boxes), max_out, dtype=torch.bool)
    valid = valid & boxes.isfinite().all(-1) & scores.isfinite()
    for n in range(len(boxes)):
        best = [torch.zeros(0, dtype=torch.int64)]
        for name in group[n, valid[n]].unique():
            rows = (valid[n] & (group[n] == name)).nonzero().squeeze(1)
            best.append(rows[torchvision_nms(boxes[n, rows], scores[n, rows], iou)])
        rows = torch.cat(best).sort().values
        rows = rows[scores[n, rows].sort(descending=True, stable=True).indices][:max_out]
        index[n, : len(rows)] = rows
        kept[n, : len(rows)] = True
    return index, kept


def assert_same(found, wanted):
    assert torch.equal(found[1], wanted[1])
    assert torch.equal(found[0], wanted[0])


def crowded(seed: int, pictures: int = 2, count: int = 300, groups: int = 4):
    """Boxes of float sides that overlap a lot, all scores different."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(pictures, count, 2, generator=generator) * 100
    boxes = torch.cat((corner, corner + 5 + torch.rand(pictures, count, 2, generator=generator) * 40), -1)
    scores = torch.rand(pictures, count, generator=generator)
    group = torch.randint(0, groups, (pictures, count), generator=generator)
    valid = torch.rand(pictures, count, generator=generator) < 0.8
    return boxes, scores, group, valid


def awkward(seed: int, pictures: int = 100, count: int = 30):
    """Integer boxes on a small grid: equal scores and overlaps, duplicates, no area, inverted, outside, not finite."""
    generator = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, (pictures, count, *shape), generator=generator)

    corner, side = whole(-8, 12, 2), whole(-1, 9, 2)
    boxes = torch.cat((corner, corner + side), -1).float()
    scores = whole(0, 6).float() / 8
    strange = torch.tensor([torch.nan, torch.inf, -torch.inf])
    boxes.view(-1)[:: 41 + seed % 7] = strange[seed % 3]
    scores.view(-1)[:: 23 + seed % 5] = strange[(seed + 1) % 3]
    group = whole(-2, 3) * 2**40
    # Some pictures with one group, some with nothing.
    group[::3] = 5
    valid = whole(0, 5) > 0
    valid[::10] = False
    return boxes, scores, group, valid


def chain(count: int):
    """Boxes in a row, best first, each of which overlaps the next by 2/3 and the one after it by less than 1/2."""
    left = torch.arange(count) * 2.0
    boxes = torch.stack((left, torch.zeros(count), left + 10, torch.full((count,), 10.0)), -1)[None]
    group = torch.zeros(1, count, dtype=torch.int64)
    return boxes, torch.arange(count, 0, -1.0)[None], group, torch.ones(1, count, dtype=torch.bool)


@pytest.mark.parametrize("iou", (0.3, 0.5, 0.7))
def test_keeps_what_torchvision_keeps(way, iou):
    for seed in range(3):
        for inputs in (crowded(seed), tuple(crowded(seed, count=900, groups=1))):
            assert_same(nms(*inputs, iou, 300), expected(*inputs, iou, 300))


def test_keeps_what_torchvision_keeps_in_thousands_of_awkward_cases(way):
    # Each set's own sweep takes half a millisecond.
    for seed in range(0, 100, 20 if way == "sweep" else 3):
        inputs, iou = awkward(seed), LIMITS[seed % len(LIMITS)]
        assert_same(nms(*inputs, iou, 30), expected(*inputs, iou, 30))


def test_float64_and_half(way):
    boxes, scores, group, valid = awkward(1)
    wide = boxes.double() / 3
    assert_same(nms(wide, scores, group, valid, 1 / 3, 30), expected(wide, scores.double(), group, valid, 1 / 3, 30))
    found = nms(boxes.half(), scores.half(), group, valid, 0.5, 30)
    assert_same(found, expected(boxes, scores, group, valid, 0.5, 30))


@pytest.mark.parametrize("count", (40, 200, 1500))
def test_chains_of_suppressions_of_any_length(way, count):
    index, kept = nms(*chain(count), 0.5, count)
    assert index[kept].tolist() == list(range(0, count, 2))


def test_an_overlap_that_equals_the_limit_suppresses_nothing(way):
    boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 3]]])
    inputs = boxes, torch.tensor([[0.9, 0.8, 0.7]]), torch.zeros(1, 3).long(), torch.ones(1, 3).bool()
    assert nms(*inputs, 0.5, 3)[0].tolist() == [[0, 1, 0]]
    assert nms(*inputs, 0.75, 3)[0].tolist() == [[0, 1, 2]]
    # 1/10 in float32 is more than 0.1.
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 1]]])
    assert nms(boxes, *(value[:, :2] for value in inputs[1:]), 0.1, 2)[1].sum() == 1


def test_values_that_are_not_finite_are_not_valid(way):
    boxes = torch.tensor([[[0.0, 0, 4, 4]]]).repeat(1, 7, 1)
    boxes[0, 1, 2], boxes[0, 2, 0], boxes[0, 3, 3] = torch.nan, -torch.inf, torch.inf
    scores = torch.tensor([[torch.nan, 0.9, 0.9, 0.9, torch.inf, -torch.inf, 0.1]])
    index, kept = nms(boxes, scores, torch.zeros(1, 7).long(), torch.ones(1, 7).bool(), 0.5, 3)
    assert index.tolist() == [[6, 0, 0]]
    assert kept.tolist() == [[True, False, False]]


def test_sizes_that_float32_cannot_multiply(way):
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-23, 1e-20, 1e-18, 1e18, 1e30, 1e37):
        boxes, scores, group, valid = awkward(2)
        boxes = boxes * scale * (1 + torch.rand(boxes.shape, generator=generator) / 10)
        inputs = boxes, scores, group, valid
        assert_same(nms(*inputs, 0.5, 30), expected(*inputs, 0.5, 30))


def test_one_shape(way):
    inputs = crowded(0)
    for pictures in (0, 1, 2):
        for count in (0, 1, 20):
            some = tuple(value[:pictures, :count] for value in inputs)
            for max_out in (0, 1, 5, 50):
                found = nms(*some, 0.5, max_out)
                assert found[0].shape == found[1].shape == (pictures, max_out)
                assert found[0].dtype == torch.int64
                assert_same(found, expected(*some, 0.5, max_out))
    nothing = nms(*inputs[:3], torch.zeros_like(inputs[3]), 0.5, 50)
    assert not nothing[1].any()
    assert not nothing[0].any()


def test_equal_scores_keep_their_order(way):
    boxes = torch.tensor([[[0.0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10]]])
    index, kept = nms(boxes, torch.full((1, 3), 0.5), torch.zeros(1, 3).long(), torch.ones(1, 3).bool(), 0.5, 3)
    assert index.tolist() == [[0, 1, 2]]
    assert kept.all()


def test_large_sets_are_swept_if_they_are_sparse_only(monkeypatch):
    swept = []
    sweep = nms_cpu._sweep
    monkeypatch.setattr(nms_cpu, "_sweep", lambda *inputs: swept.append(sweep(*inputs)) or swept[-1])
    boxes, *others = crowded(0, 1, 3000, 1)
    for spread, sparse in ((50, True), (1, False)):
        moved = boxes + (spread - 1) * boxes[..., :2].repeat(1, 1, 2)
        assert_same(nms(moved, *others, 0.5, 3000), expected(moved, *others, 0.5, 3000))
        assert (len(swept) == 1 and swept[0] is not None) == sparse
        swept.clear()


def test_compiled_equals_eager():
    torch.compiler.reset()
    # Inductor compiles the last test: it takes seconds.
    compiled = torch.compile(nms, fullgraph=True, backend="aot_eager")
    for inputs in (crowded(0), crowded(1), crowded(1, 3, 70)):
        assert_same(compiled(*inputs, 0.5, 50), nms(*inputs, 0.5, 50))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
def test_compiled_for_every_shape_equals_eager(backend):
    torch.compiler.reset()
    compiled = torch.compile(nms, fullgraph=True, dynamic=True, backend=backend)
    for inputs, iou in ((crowded(0), 0.5), (crowded(1, 3, 70), 0.3), (awkward(0), 1 / 3), (chain(100), 0.5)):
        assert_same(compiled(*inputs, iou, 50), nms(*inputs, iou, 50))


def test_compiled_inside_a_training_step():
    """On detached boxes, in the middle of what autograd goes through."""

    def loss(boxes, scores, group, valid):
        index, kept = nms(boxes, scores, group, valid, 0.5, 40)
        return (scores.gather(1, index) * kept).square().sum() + boxes.mean()

    boxes, scores, group, valid = crowded(0)
    torch.compiler.reset()
    gradients = []
    for function in (loss, torch.compile(loss, fullgraph=True)):
        leaves = boxes.clone().requires_grad_(), scores.clone().requires_grad_()
        function(*leaves, group, valid).backward()
        gradients.append([leaf.grad for leaf in leaves])
    for eager, compiled in zip(*gradients):
        assert torch.allclose(eager, compiled)


class Suppress(nn.Module):
    def __init__(self, iou: float):
        super().__init__()
        self.iou = iou

    def forward(self, boxes, scores, group, valid):
        return nms(boxes, scores, group, valid, self.iou, 50)


@pytest.mark.parametrize("strict", (False, True))
def test_exported_equals_eager_at_every_shape(strict):
    pictures, count = torch.export.Dim("pictures", min=0), torch.export.Dim("count", min=0)
    shapes = ({0: pictures, 1: count},) * 4
    program = torch.export.export(Suppress(1 / 3), crowded(0), dynamic_shapes=shapes, strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    assert not any("tracesight" in str(node.target) for node in program.graph.nodes)
    for run in (program.module(), torch.export.load(file).module()):
        for inputs in (crowded(0), crowded(1, 3, 500), crowded(2, 1, 64), crowded(3, 1, 1), awkward(0), awkward(1)):
            assert_same(run(*inputs), nms(*inputs, 1 / 3, 50))
        assert_same(run(*chain(300)), nms(*chain(300), 1 / 3, 50))
        for nothing in (crowded(0, 0, 5), crowded(0, 3, 0)):
            assert_same(run(*nothing), nms(*nothing, 1 / 3, 50))


def test_the_operator_tells_its_shape_without_running():
    inputs = tuple(value.to("meta") for value in crowded(0))
    index, kept = nms(*inputs, 0.5, 7)
    assert index.shape == kept.shape == (2, 7)
