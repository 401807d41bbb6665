"""RoIAlign against torchvision's, forward and backward, and against the sum written out."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align

from tracesight.ops.pyramid import feature_table, region_levels
from tracesight.ops.roi_align import multilevel_roi_align

STRIDES = (4, 8, 16, 32)


def pyramid(dtype=torch.float32, channels=8):
    torch.manual_seed(0)
    return [torch.randn(2, channels, 256 // s, 320 // s, dtype=dtype) for s in STRIDES]


def regions(count=200):
    torch.manual_seed(1)
    corner = torch.rand(count, 2) * torch.tensor([300.0, 240.0])
    side = 2 ** (torch.rand(count, 2) * 9)
    # Some hang over the edge, some have no area.
    boxes = torch.cat((corner, corner + side), 1) - 10
    boxes[:5, 2:] = boxes[:5, :2]
    # One for every level.
    boxes[5:9] = torch.tensor([[5.0, 5, 5 + side, 5 + side] for side in (40, 130, 240, 460)])
    return boxes, torch.randint(0, 2, (count,))


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("size", "sampling"), [(7, 2), (14, 2), (3, 1), (5, 3)])
def test_equals_torchvision_on_one_level(aligned, size, sampling):
    features = [pyramid()[0].double()]
    boxes, picture = regions()
    boxes = boxes.double()
    ours = multilevel_roi_align(
        feature_table(features), boxes, picture, STRIDES[:1], output_size=size, sampling=sampling, aligned=aligned
    )
    rois = torch.cat((picture[:, None].double(), boxes), 1)
    theirs = roi_align(features[0], rois, size, 0.25, sampling, aligned)
    assert torch.allclose(ours, theirs, atol=1e-10)


def test_equals_torchvision_on_a_pyramid():
    features = pyramid(torch.float64)
    boxes, picture = regions()
    boxes = boxes.double().clamp(min=0)
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    rows = torch.cat(((picture == 0).nonzero(), (picture == 1).nonzero())).squeeze(1)
    theirs = pool(
        OrderedDict((str(i), f) for i, f in enumerate(features)),
        [boxes[picture == 0], boxes[picture == 1]],
        [(256, 320)] * 2,
    )
    ours = multilevel_roi_align(
        feature_table(features), boxes[rows], picture[rows], STRIDES, output_size=7, sampling=2, aligned=False
    )
    assert torch.allclose(ours, theirs, atol=1e-10)
    assert len(region_levels(boxes, STRIDES)[0].unique()) == 4


def test_gradient_equals_torchvision():
    boxes, picture = regions()
    rois = torch.cat((picture[:, None].float(), boxes), 1)
    feature = pyramid()[0].requires_grad_()
    cotangent = torch.randn(len(boxes), 8, 7, 7)
    ours = multilevel_roi_align(
        feature_table([feature]), boxes, picture, (4,), output_size=7, sampling=2, aligned=False
    )
    (our_grad,) = torch.autograd.grad(ours, feature, cotangent)
    (their_grad,) = torch.autograd.grad(roi_align(feature, rois, 7, 0.25, 2, False), feature, cotangent)
    assert torch.allclose(our_grad, their_grad, atol=1e-4)


def test_gradient_is_the_derivative():
    torch.manual_seed(0)
    features = [torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)]
    boxes = torch.tensor([[3.0, 3, 20, 17], [0, 0, 31, 31]], dtype=torch.float64)
    picture = torch.zeros(2, dtype=torch.int64)
    assert torch.autograd.gradcheck(
        lambda f: multilevel_roi_align(
            feature_table([f]), boxes, picture, (4,), output_size=2, sampling=2, aligned=False
        ),
        features,
    )


def test_bfloat16_is_near_and_no_regions_work():
    boxes, picture = regions()
    settings = {"output_size": 7, "sampling": 2, "aligned": False}
    exact = multilevel_roi_align(feature_table(pyramid()), boxes, picture, STRIDES, **settings)
    half = multilevel_roi_align(feature_table([f.bfloat16() for f in pyramid()]), boxes, picture, STRIDES, **settings)
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().max() < 0.05
    features = [f.requires_grad_() for f in pyramid()]
    none = multilevel_roi_align(feature_table(features), boxes[:0], picture[:0], STRIDES, **settings)
    assert none.shape == (0, 8, 7, 7)
    none.sum().backward()
    assert features[0].grad is not None and features[0].grad.abs().max() == 0


@pytest.mark.parametrize("aligned", [False, True])
def test_adaptive_sampling_equals_torchvisions(aligned):
    feature = pyramid()[0].double()
    boxes, picture = regions()
    boxes = boxes.double()
    ours = multilevel_roi_align(
        feature_table([feature]), boxes, picture, (4,), output_size=7, sampling=0, aligned=aligned
    )
    rois = torch.cat((picture[:, None].double(), boxes), 1)
    assert torch.allclose(ours, roi_align(feature, rois, 7, 0.25, 0, aligned), atol=1e-10)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling", [0, 1, 2, 3])
def test_padded_equals_ragged(monkeypatch, sampling, aligned):
    features = [f.double().requires_grad_() for f in pyramid()]
    boxes, picture = regions()
    settings = {"output_size": 9, "sampling": sampling, "aligned": aligned}
    # At most 8 cells a bin on their level: the padded form takes no more samples.
    boxes = boxes.double().clamp(min=-20, max=250)
    ragged = multilevel_roi_align(feature_table(features), boxes, picture, STRIDES, **settings)
    cotangent = torch.randn_like(ragged)
    gradients = torch.autograd.grad(ragged, features, cotangent)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    padded = multilevel_roi_align(feature_table(features), boxes, picture, STRIDES, **settings)
    assert torch.allclose(padded, ragged, atol=1e-10)
    for one, other in zip(torch.autograd.grad(padded, features, cotangent), gradients):
        assert torch.allclose(one, other, atol=1e-10)


def test_adaptive_sampling_is_limited_and_says_so_where_nothing_may_be_read(monkeypatch):
    feature = pyramid()[0]
    boxes, picture = torch.tensor([[0.0, 0, 300, 240]]), torch.zeros(1, dtype=torch.int64)
    monkeypatch.setattr("tracesight.ops.roi_align.may_read", lambda _: False)
    with pytest.warns(UserWarning, match="at most 8 samples"):
        capped = multilevel_roi_align(
            feature_table([feature]), boxes, picture, (4,), output_size=2, sampling=0, aligned=True
        )
    # 8 samples a side are what a fixed sampling of 8 gives.
    rois = torch.cat((picture[:, None].float(), boxes), 1)
    assert torch.allclose(capped, roi_align(feature, rois, 2, 0.25, 8, True), atol=1e-5)


@pytest.mark.parametrize("sampling", [0, 2])
@pytest.mark.parametrize("padded", [False, True])
def test_boxes_that_are_not_finite_far_outside_or_without_area(monkeypatch, padded, sampling):
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor(
        [
            [nan, 0, 10, 10],
            [0, 0, inf, 10],
            [-inf, -inf, inf, inf],
            [1e6, 1e6, 1e6 + 50, 1e6 + 50],
            [-500.0, -500, -300, -300],
            [20, 20, 20, 20],
            [30, 30, 10, 10],
            [-1e30, -1e30, 1e30, 1e30],
        ]
    )
    if padded:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    features = [f.requires_grad_() for f in pyramid()]
    picture = torch.zeros(len(boxes), dtype=torch.int64)
    out = multilevel_roi_align(
        feature_table(features), boxes, picture, STRIDES, output_size=2, sampling=sampling, aligned=False
    )
    assert (out[:5] == 0).all()
    assert torch.isfinite(out).all()
    rois = torch.cat((picture[5:7, None].float(), boxes[5:7]), 1)
    assert torch.allclose(out[5:7], roi_align(features[0], rois, 2, 0.25, sampling, False), atol=1e-5)
    out.sum().backward()
    assert all(torch.isfinite(feature.grad).all() for feature in features)


def test_no_pictures_and_wrong_strides():
    empty = [torch.zeros(0, 8, 16, 16), torch.zeros(0, 8, 8, 8)]
    settings = {"output_size": 7, "sampling": 2, "aligned": False}
    boxes, picture = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    assert multilevel_roi_align(feature_table(empty), boxes, picture, (4, 8), **settings).shape == (0, 8, 7, 7)
    with pytest.raises(ValueError, match="double"):
        multilevel_roi_align(feature_table(empty), boxes, picture, (4, 12), **settings)


def test_bfloat16_gradient_is_near():
    boxes, picture = regions()
    exact, half = (
        [f.to(dtype).detach().requires_grad_() for f in pyramid()] for dtype in (torch.float32, torch.bfloat16)
    )
    cotangent = torch.randn(len(boxes), 8, 7, 7)
    for features in (exact, half):
        out = multilevel_roi_align(
            feature_table(features), boxes, picture, STRIDES, output_size=7, sampling=2, aligned=False
        )
        out.backward(cotangent.to(out.dtype))
    for one, other in zip(exact, half):
        assert other.grad.dtype == torch.bfloat16
        assert (one.grad - other.grad.float()).abs().max() < 0.02 * one.grad.abs().max()
