"""How the systems of the R-CNN family differ from one another, and what their parts do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_detector import SMALL, batch_of, given, small_args
from torch import nn

from tracesight.errors import UserError
from tracesight.models import resnet
from tracesight.models.box_heads import BoxHead, BoxPredictor, ConvBoxHead
from tracesight.models.build import build
from tracesight.models.fpn import FeaturePyramid
from tracesight.models.norms import norm_layer
from tracesight.models.proposals import GivenProposals, ProposalsAlone
from tracesight.models.roi_heads import RegionPool
from tracesight.models.warped import AT_A_TIME, WarpedRegions
from tracesight.ops.pyramid import feature_table


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    monkeypatch.setitem(resnet.DEPTHS, 18, (1, 1, 1, 1))


def small(name: str, classes: int = 4, **args) -> nn.Module:
    torch.manual_seed(0)
    return build(name, classes, **{**small_args(name), **args})


def test_given_proposals_have_no_parameters_and_the_rpn_alone_no_heads():
    given_only, alone = small("fast_rcnn_resnet18"), small("rpn_resnet18_c4", 2)
    assert isinstance(given_only.rpn, GivenProposals)
    assert not list(given_only.rpn.parameters())
    assert isinstance(alone.roi_heads, ProposalsAlone)
    assert not list(alone.roi_heads.parameters())
    # The two halves hold what the whole holds, under the same names.
    whole = small("faster_rcnn_resnet18_c4").state_dict().keys()
    assert given_only.state_dict().keys() | alone.state_dict().keys() == whole


def test_c4_reads_regions_with_the_fifth_stage():
    model = small("faster_rcnn_resnet18_c4")
    features = model.backbone(torch.rand(1, 3, 64, 96))
    assert [tuple(feature.shape) for feature in features] == [(1, 256, 4, 6)]
    assert model.roi_heads.box_head(torch.rand(5, 256, 6, 6)).shape == (5, 512)
    assert not any(name.startswith("backbone.body.layer4") for name in model.state_dict())


def test_dc5_sees_as_far_as_the_fifth_stage_and_keeps_the_stride_of_the_fourth():
    model = small("faster_rcnn_resnet18_dc5")
    assert model.backbone(torch.rand(1, 3, 64, 96))[0].shape == (1, 512, 4, 6)
    convolutions = [m for m in model.backbone.body.layer4.modules() if isinstance(m, nn.Conv2d)]
    assert all(c.stride == (1, 1) for c in convolutions)
    assert all(c.dilation == (2, 2) for c in convolutions if c.kernel_size == (3, 3))


@pytest.mark.parametrize("name", ["faster_rcnn_resnet18_c4", "faster_rcnn_resnet18_dc5"])
def test_regions_are_pooled_or_aligned(name):
    assert isinstance(small(name, pool="pool").roi_heads.box_roi_pool, RegionPool)
    assert not isinstance(small(name).roi_heads.box_roi_pool, RegionPool)
    with pytest.raises(UserError, match="'align' or 'pool'"):
        small(name, pool="max")


def test_c4_masks_come_from_the_features_of_the_box_head():
    model = small("mask_rcnn_resnet18_c4", pool_size=14)
    with torch.inference_mode():
        assert model(batch_of(1)[0]).masks.shape == (2, 7, 14, 14)
    losses = model(*batch_of(1))
    losses["loss_mask"].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.roi_heads.box_head.layer4[0].conv1.parameters())


@pytest.mark.parametrize("name", ["mask_rcnn_resnet18_c4", "mask_rcnn_resnet18_fpn"])
def test_one_mask_for_all_classes(name):
    model = small(name, mask_agnostic=True)
    assert model.state_dict()["roi_heads.mask_predictor.mask_fcn_logits.weight"].shape[0] == 1
    batch, targets = batch_of(1)
    loss = model(batch, targets)["loss_mask"]
    assert loss > 0
    # Whatever the class, it is the same mask that is asked for.
    table = feature_table(model.backbone(model.standardise(batch))[: model.roi_heads.levels])
    boxes, picture = torch.tensor([[4.0, 4, 40, 40]] * 2), torch.tensor([0, 0])
    one, other = model.roi_heads.mask_logits(table, boxes, picture, torch.tensor([1, 3]))
    assert torch.equal(one, other)
    assert model.spec["args"]["mask_agnostic"]  # so it travels in a bundle


def test_p6_is_pooled_or_a_convolution():
    stages = [torch.rand(1, 4, 2 ** (6 - i), 3 * 2 ** (5 - i)) for i in range(4)]
    pooled, convolved = FeaturePyramid([4] * 4, 8), FeaturePyramid([4] * 4, 8, p6="conv")
    assert torch.equal(pooled(stages)[4], pooled(stages)[3][:, :, ::2, ::2])
    assert convolved(stages)[4].shape == pooled(stages)[4].shape
    assert convolved.state_dict().keys() - pooled.state_dict().keys() == {
        "extra_blocks.p6.weight",
        "extra_blocks.p6.bias",
    }
    with pytest.raises(ValueError, match="'pool' or 'conv'"):
        FeaturePyramid([4] * 4, 8, p6="mean")


def test_an_rpn_alone_has_two_classes_and_gives_its_proposals_with_their_objectness():
    with pytest.raises(UserError, match="num_classes is 4"):
        small("rpn_resnet18_fpn", 4)
    model = small("rpn_resnet18_fpn", 2, roi={"max_objects": 30, "score_threshold": 0.0})
    with torch.inference_mode():
        found = model(batch_of(1)[0])
    assert found.boxes.shape == (2, 30, 4)
    assert found.valid.sum(1).tolist() == [20, 20]  # as many as come out of the NMS, and padding
    assert (found.labels == found.valid.long()).all()
    assert (found.scores[:, 1:] <= found.scores[:, :-1]).all()
    assert ((found.scores > 0) == found.valid).all()


def test_a_batch_without_proposals_is_refused_where_they_are_needed():
    with pytest.raises(ValueError, match="batch holds none"):
        small("fast_rcnn_resnet18")(batch_of(1)[0])


def test_padding_of_proposals_changes_nothing():
    model, batch = small("fast_rcnn_resnet18"), given(batch_of(1)[0])
    more = torch.full((2, 20, 4), torch.nan)
    padded = batch._replace(
        proposals=torch.cat((batch.proposals, more), 1),
        proposals_valid=torch.cat((batch.proposals_valid, torch.zeros(2, 20, dtype=torch.bool)), 1),
    )
    with torch.inference_mode():
        for one, other in zip(model(batch), model(padded)):
            assert one is other or torch.equal(one, other)
    none = batch._replace(proposals_valid=torch.zeros_like(batch.proposals_valid))
    with torch.inference_mode():
        assert not model(none).valid.any()
    assert all(loss.isfinite() for loss in model(none, batch_of(0)[1]).values())


def test_a_crop_is_the_region_and_what_lies_around_it():
    """A gradient along x, cropped: the region fills the middle, the context what is beside it, zeros what is beyond."""
    ramp = torch.arange(64.0).expand(1, 1, 64, 64)
    regions = WarpedRegions(resnet.resnet(18, "v1.5", None, in_channels=1), 12, 2)
    crops = regions.warp(
        feature_table([ramp]), torch.tensor([[16.0, 16, 32, 32], [0, 0, 16, 16]]), torch.tensor([0, 0])
    )
    # 16 pixels over 8 cells: a cell is 2 pixels wide, and 2 cells of context are 4 pixels.
    assert torch.allclose(crops[0, 0, 5], torch.arange(12.0, 36, 2) + 0.5)
    assert (crops[1, 0, :, :2] == 0).all()
    assert (crops[1, 0, :1] == 0).all()  # within a pixel of the picture, RoIAlign goes on with its border
    assert torch.allclose(crops[1, 0, 5, 2:], torch.arange(0.0, 20, 2) + 0.5)


def test_features_of_a_frozen_network_are_computed_once_and_are_the_same(monkeypatch):
    model, batch = small("rcnn_resnet18"), given(batch_of(1)[0], AT_A_TIME)
    regions = model.roi_heads.box_roi_pool
    regions.requires_grad_(False)
    with torch.inference_mode():
        first = model(batch)
    calls = []
    monkeypatch.setattr(regions, "_features", lambda crops: calls.append(len(crops)))
    # In training as in prediction, in any company, and with gradients for the layers after it.
    turned = batch._replace(
        proposals=batch.proposals[:, :-1].flip(1), proposals_valid=batch.proposals_valid[:, :-1].flip(1)
    )
    with torch.inference_mode():
        again = model(turned)
        assert all(torch.equal(one, other) for one, other in zip(model(batch)[:4], first[:4]))
    assert torch.equal(again.scores, first.scores)
    assert not calls
    # The weights are others: nothing of it is true any more.
    monkeypatch.undo()
    with torch.no_grad():
        regions.body.conv1.weight.mul_(1.5)
    with torch.inference_mode():
        assert not torch.equal(model(batch).scores, first.scores)


def test_a_frozen_network_trains_what_comes_after_it():
    model, (batch, targets) = small("rcnn_resnet18"), batch_of(1)
    model.roi_heads.box_roi_pool.requires_grad_(False)
    with torch.inference_mode():
        model(given(batch))
    losses = model(given(batch), targets)
    sum(losses.values()).backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert all((grads[name] is not None) == ("box_predictor" in name) for name in grads)


def test_deeper_heads_have_the_layers_that_are_asked_for():
    model = small("faster_rcnn_resnet18_fpn", box_convs=3, rpn_convs=2, head_norm=None)
    assert sum(isinstance(m, nn.Conv2d) for m in model.roi_heads.box_head) == 0  # each is in a block of its own
    assert [len(block) for block in list(model.roi_heads.box_head)[:3]] == [2, 2, 2]
    assert len(model.rpn.head.conv) == 2
    assert SMALL["box_channels"] == model.roi_heads.box_predictor.cls_score.in_features


@pytest.mark.parametrize(
    "head",
    [
        lambda: BoxHead(16, 5, 400),
        lambda: ConvBoxHead(16, 5, 400, 2, norm_layer("group")),
        lambda: BoxPredictor(400, 50),
    ],
    ids=["two layers", "convolutions", "predictor"],
)
def test_fully_connected_layers_begin_as_large_as_torchs_own(head: Callable[[], nn.Module]):
    """U(±1 / √fan-in): larger and smaller ones were seen to learn boxes more slowly."""
    torch.manual_seed(0)
    layers = [layer for layer in head().modules() if isinstance(layer, nn.Linear)]
    assert layers
    for layer in layers:
        most = layer.in_features**-0.5
        assert 0.98 * most < layer.weight.abs().max() <= most and 0.9 * most < layer.bias.abs().max() <= most
        assert layer.weight.std().item() == pytest.approx(most / 3**0.5, rel=0.02)
