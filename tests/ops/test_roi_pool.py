"""RoIPool against torchvision's, to the bit, forward and backward, and against values worked out by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torchvision.ops import roi_pool

from tracesight.ops import roi_pool as module
from tracesight.ops.pyramid import feature_table, region_levels
from tracesight.ops.roi_pool import multilevel_roi_pool

STRIDES = (4, 8, 16, 32)
NAN, INF = float("nan"), float("inf")


def pyramid(dtype=torch.float32, channels=8, strides=STRIDES):
    """Levels of two pictures of 256 × 320 pixels; values are coarse, so that bins have several greatest ones."""
    torch.manual_seed(0)
    levels = [torch.randn(2, channels, 256 // s, 320 // s).round(decimals=1).to(dtype) for s in strides]
    return [level.to(memory_format=torch.channels_last).requires_grad_() for level in levels]


def regions(dtype=torch.float32, count=400):
    torch.manual_seed(1)
    corner = torch.rand(count, 2, dtype=dtype) * torch.tensor([300.0, 240.0], dtype=dtype)
    # Some hang over the edge, some lie outside, some have no area or less.
    boxes = torch.cat((corner, corner + 2 ** (torch.rand(count, 2, dtype=dtype) * 9)), 1) - 20
    boxes[:5, 2:] = boxes[:5, :2]
    boxes[5:10, 2:] = boxes[5:10, :2] - 40
    boxes[10:15] += 2000
    # Edges on halves of cells of every level, where rounding has two ways to go.
    boxes[200:300] = (boxes[200:300] / 2).round() * 2
    return boxes, torch.randint(0, 2, (count,))


def theirs(features, boxes, picture, strides, size):
    """torchvision's operator on each level, each region from its own."""
    rois = torch.cat((picture[:, None].to(boxes.dtype), boxes), 1)
    level = region_levels(boxes, strides)[0]
    pooled = torch.zeros(len(boxes), features[0].shape[1], size, size, dtype=boxes.dtype)
    for index, (feature, stride) in enumerate(zip(features, strides)):
        pooled[level == index] = roi_pool(feature, rois[level == index], size, 1 / stride)
    return pooled


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("strides", "size"), [((16,), 7), ((6,), 5), ((1,), 2), ((4,), 1), (STRIDES, 7), (STRIDES, 14)]
)
def test_equals_torchvision_to_the_bit(dtype, strides, size):
    features = pyramid(dtype, strides=strides)
    boxes, picture = regions(dtype)
    ours = multilevel_roi_pool(feature_table(features), boxes, picture, strides, output_size=size)
    expected = theirs(features, boxes, picture, strides, size)
    assert torch.equal(ours, expected)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    cotangent = torch.randn_like(expected)
    our_grads = torch.autograd.grad(ours, features, cotangent)
    for our, their in zip(our_grads, torch.autograd.grad(expected, features, cotangent)):
        assert torch.equal(our, their)
    with torch.no_grad():
        assert torch.equal(
            multilevel_roi_pool(feature_table(features), boxes, picture, strides, output_size=size), expected
        )


def test_parts_make_no_difference(monkeypatch):
    features, (boxes, picture) = pyramid(), regions()
    whole = multilevel_roi_pool(feature_table(features), boxes, picture, STRIDES, output_size=7)
    cotangent = torch.randn_like(whole)
    expected = torch.autograd.grad(whole, features, cotangent)
    monkeypatch.setattr(module, "AT_A_TIME", 500)
    monkeypatch.setattr(module, "ENTRIES", 3000)
    ours = multilevel_roi_pool(feature_table(features), boxes, picture, STRIDES, output_size=7)
    assert torch.equal(ours, whole)
    for our, their in zip(torch.autograd.grad(ours, features, cotangent), expected):
        assert torch.equal(our, their)


def test_bins_of_one_region_by_hand():
    feature = torch.arange(24.0).view(1, 1, 4, 6)
    # Columns 8 / 16 and 40 / 16 round to 1 and 3, rows 8 / 16 and 24 / 16 to 1 and 2, all of them inclusive: 2 rows of
    # 3 columns, which 2 bins a side share: columns 1, 2 and 2, 3.
    boxes, picture = torch.tensor([[8.0, 8.0, 40.0, 24.0]]), torch.zeros(1, dtype=torch.int64)
    pooled = multilevel_roi_pool(feature_table([feature]), boxes, picture, (16,), output_size=2)
    assert pooled.tolist() == [[[[8.0, 9.0], [14.0, 15.0]]]]


def test_bfloat16_gives_the_values_that_float32_has_for_it():
    features, (boxes, picture) = pyramid(torch.bfloat16), regions()
    full = [feature.detach().float().requires_grad_() for feature in features]
    half = multilevel_roi_pool(feature_table(features), boxes, picture, STRIDES, output_size=7)
    exact = multilevel_roi_pool(feature_table(full), boxes, picture, STRIDES, output_size=7)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half.float(), exact)
    cotangent = torch.randn_like(exact).bfloat16()
    half_grads = torch.autograd.grad(half, features, cotangent)
    # Added up in float32, and rounded once.
    for ours, expected in zip(half_grads, torch.autograd.grad(exact, full, cotangent.float())):
        assert torch.equal(ours, expected.bfloat16())


def test_gradient_is_the_derivative():
    torch.manual_seed(0)
    feature = torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[3.0, 3, 20, 17], [0, 0, 31, 31], [-20, 10, 12, 90]], dtype=torch.float64)
    picture = torch.zeros(3, dtype=torch.int64)
    assert torch.autograd.gradcheck(
        lambda f: multilevel_roi_pool(feature_table([f]), boxes, picture, (4,), output_size=2), feature, eps=1e-6
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_boxes_that_are_not_finite_give_zeros(compiled):
    features = [level.detach().abs().add(1).requires_grad_() for level in pyramid()]
    bad = torch.tensor([[NAN, 0, 90, 90], [0, 0, INF, 90], [0, -INF, 90, 90], [NAN, NAN, NAN, NAN]])
    good = torch.tensor([[0.0, 0, 90, 90], [-1e30, -1e30, 1e30, 1e30], [1e30, 1e30, 2e30, 2e30]])
    boxes, picture = torch.cat((bad, good)), torch.zeros(7, dtype=torch.int64)

    def pool(boxes):
        return multilevel_roi_pool(feature_table(features), boxes, picture[: len(boxes)], STRIDES, output_size=3)

    pooled = (torch.compile(pool, backend="aot_eager", fullgraph=True) if compiled else pool)(boxes)
    assert pooled[:4].eq(0).all()
    assert pooled[4].gt(0).all()
    # The bin in the middle is larger than the picture and holds all of it; the others, and the last box, none.
    assert torch.equal(pooled[5].flatten(1).nonzero(), torch.tensor([[c, 4] for c in range(8)]))
    assert torch.equal(pooled[5, :, 1, 1], features[3][0].amax((1, 2)))
    assert pooled[6].eq(0).all()
    grads = torch.autograd.grad(pooled, features, torch.ones_like(pooled))
    for ours, expected in zip(grads, torch.autograd.grad(pool(good).sum(), features)):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_that_are_not_finite_are_torchvisions(dtype):
    feature = pyramid(dtype, strides=(4,))[0].detach()
    feature[0, 0], feature[0, 1], feature[0, 2, ::2] = NAN, -INF, NAN
    feature[0, 3, ::3], feature[1, 0, 5], feature[1, 1] = INF, -INF, -3.4028234663852886e38
    if dtype == torch.float64:
        feature[1, 2] = -1e300
    feature.requires_grad_()
    boxes, picture = regions(dtype)
    ours = multilevel_roi_pool(feature_table([feature]), boxes, picture, (4,), output_size=7)
    expected = theirs([feature], boxes, picture, (4,), 7)
    assert torch.equal(ours, expected)
    cotangent = torch.randn_like(expected)
    our_grad, their_grad = (torch.autograd.grad(one, feature, cotangent)[0] for one in (ours, expected))
    assert torch.equal(our_grad, their_grad)
    assert our_grad[0, :2].eq(0).all()


def test_nothing_in_is_nothing_out():
    features, (boxes, picture) = pyramid(), regions()
    none = multilevel_roi_pool(feature_table(features), boxes[:0], picture[:0], STRIDES, output_size=7)
    assert none.shape == (0, 8, 7, 7)
    for grad in torch.autograd.grad(none.sum(), features):
        assert grad.abs().max() == 0
    empty = [feature[:0] for feature in features]
    assert multilevel_roi_pool(feature_table(empty), boxes[:0], picture[:0], STRIDES, output_size=7).shape == (
        0,
        8,
        7,
        7,
    )
    # Maps without cells, from a picture smaller than a cell.
    flat = [feature[:, :, :0] for feature in features]
    assert multilevel_roi_pool(feature_table(flat), boxes, picture, STRIDES, output_size=7).eq(0).all()


def test_what_cannot_be_read_is_refused():
    features, (boxes, picture) = pyramid(), regions()
    for wrong in (-1, 2):
        with pytest.raises(ValueError, match=r"of pictures .* of 2"):
            multilevel_roi_pool(
                feature_table(features), boxes, picture.index_fill(0, torch.tensor([7]), wrong), STRIDES, output_size=7
            )
    with pytest.raises(ValueError, match="do not double"):
        multilevel_roi_pool(feature_table(features), boxes, picture, (4, 8, 16, 24), output_size=7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_equals_eager(backend, dtype):
    features, (boxes, picture) = pyramid(dtype), regions(count=60)

    def pool(features, boxes, picture):
        return multilevel_roi_pool(feature_table(features), boxes, picture, STRIDES, output_size=7)

    torch._dynamo.reset()
    compiled = torch.compile(pool, backend=backend, fullgraph=True)
    ours, expected = compiled(features, boxes, picture), pool(features, boxes, picture)
    assert torch.equal(ours, expected)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    cotangent = torch.randn_like(expected)
    our_grads = torch.autograd.grad(ours, features, cotangent)
    for our, their in zip(our_grads, torch.autograd.grad(expected, features, cotangent)):
        assert torch.equal(our, their)


class Pool(torch.nn.Module):
    def forward(self, features, boxes, picture):
        return multilevel_roi_pool(feature_table(features), boxes, picture, STRIDES, output_size=7)


@pytest.mark.parametrize("strict", [False, True])
def test_exported_takes_any_size(strict):
    features, (boxes, picture) = [level.detach() for level in pyramid()], regions(count=30)
    pictures, count = torch.export.Dim("pictures", min=1, max=64), torch.export.Dim("count", min=0, max=4096)
    height, width = torch.export.Dim("height", min=1, max=64), torch.export.Dim("width", min=1, max=64)
    shapes = [{0: pictures, 2: 32 // stride * height, 3: 32 // stride * width} for stride in STRIDES]
    program = torch.export.export(
        Pool(), (features, boxes, picture), dynamic_shapes=(shapes, {0: count}, {0: count}), strict=strict
    ).module()
    for number, rows, columns, regions_ in ((2, 8, 10, 30), (1, 3, 5, 7), (3, 2, 2, 0), (1, 8, 1, 1)):
        other = [torch.randn(number, 8, 32 // s * rows, 32 // s * columns) for s in STRIDES]
        boxes, picture = regions(count=max(regions_, 16))
        boxes, picture = boxes[:regions_], picture[:regions_] % number
        expected = multilevel_roi_pool(feature_table(other), boxes, picture, STRIDES, output_size=7)
        assert torch.equal(program(other, boxes, picture), expected)


def test_it_says_nothing():
    code = """
import torch
from tracesight.ops.pyramid import feature_table
from tracesight.ops.roi_pool import multilevel_roi_pool
feature = torch.randn(1, 4, 9, 9, requires_grad=True)
boxes, picture = torch.tensor([[0.0, 0, 90, 90]]), torch.zeros(1, dtype=torch.int64)
multilevel_roi_pool(feature_table([feature]), boxes, picture, (16,), output_size=3).sum().backward()
with torch.inference_mode():
    multilevel_roi_pool(feature_table([feature]), boxes, picture, (16,), output_size=3)
"""
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
