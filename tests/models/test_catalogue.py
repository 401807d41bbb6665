"""Every network of the catalogue: its size as published, and that it runs forward and backward."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from small_detector import SMALL, batch_of, given, small_args
from torch import nn

from tracesight.errors import UserError
from tracesight.models.anchors import anchor_grid, anchors_at, cell_anchors
from tracesight.models.build import CATALOGUE, build
from tracesight.models.detections import Detections

# Parameters as torchvision's documentation has them; the detectors' with 91 classes (frozen norms are none of theirs).
RESNETS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    # Where the stride is changes no shape.
    "resnet50_v1": 25_557_032,
    "resnet101_v1": 44_549_160,
    "resnet152_v1": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x4d": 44_177_704,
    "resnext101_32x8d": 88_791_336,
    "resnext101_32x16d": 194_026_792,
    "resnext101_32x32d": 468_530_472,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
}
# As timm has them, with 1000 classes.
VITS = {
    "vit_tiny_patch16": 5_717_416,
    "vit_small_patch16": 22_050_664,
    "vit_base_patch16": 86_567_656,
    "vit_large_patch16": 304_326_632,
    "vit_huge_patch14": 632_045_800,
    # By hand: 784 positions and not 196, patches of 192 numbers and not 768.
    "vit_tiny_patch8": 5_717_416 + 588 * 192 - 576 * 192,
    # By hand: ten classes, 64 positions and not 196, patches of 48 numbers and not 768.
    "vit_tiny_patch4": 5_717_416 - 990 * 193 - 132 * 192 - 720 * 192,
}
# ViT-B/16 without classifier; the way into the decoder, mask token, positions, 8 blocks, a norm, and the way out.
MAES = {
    "mae_vit_base_patch16": 86_567_656 - 769_000 + 769 * 512 + 512 + 197 * 512
    + 8 * (12 * 512**2 + 13 * 512) + 1024 + 513 * 768,
}  # fmt: skip
# As timm has them under resnetv2_18 to 152; of 200 layers it has none.
PREACT = {
    "preact_resnet18": 11_687_720,
    "preact_resnet34": 21_795_880,
    "preact_resnet50": 25_549_352,
    "preact_resnet101": 44_541_480,
    "preact_resnet152": 60_185_128,
}
# Millions in table 6 of "Deep Residual Learning" and table 4 of "Identity Mappings"; a plain network has as many,
# since shortcuts of option A have none.
CIFAR = {
    "cifar_resnet20": "0.27",
    "cifar_resnet32": "0.46",
    "cifar_resnet44": "0.66",
    "cifar_resnet56": "0.85",
    "cifar_resnet110": "1.7",
    "cifar_resnet1202": "19.4",
    "cifar_plain20": "0.27",
    "cifar_plain32": "0.46",
    "cifar_plain44": "0.66",
    "cifar_plain56": "0.85",
    "cifar_plain110": "1.7",
    "cifar_plain1202": "19.4",
    "cifar_preact_resnet110": "1.7",
    "cifar_preact_resnet164": "1.7",
}
# By hand. Plain: ResNet's without the projections, 128 × (64 + 2) + 256 × (128 + 2) + 512 × (256 + 2) less. 200 layers:
# the 152 with 16 more units in the second stage, 512 × 128 × 2 + 9 × 128² and norms of 512 + 2 × 128 channels each.
COUNTED = {
    "plain18": 11_689_512 - 173_824,
    "plain34": 21_797_672 - 173_824,
    "preact_resnet200": 60_185_128 + 16 * (2 * 512 * 128 + 9 * 128**2 + 2 * (512 + 2 * 128)),
    # Ten classes, and a stem of 3 × 3 cells where ImageNet's has 7 × 7.
    "cifar_resnet18": 11_689_512 - 990 * 513 - 40 * 3 * 64,
}
# Published for batch norm's: torchvision counts 41,755,286 and 44,401,393 with frozen norms.
DETECTORS = {
    "faster_rcnn_resnet50_fpn": 41_755_286,
    "mask_rcnn_resnet50_fpn": 44_401_393,
    "keypoint_rcnn_resnet50_fpn": 59_137_258,
}
# With batch norm in the backbone too, as torchvision has it there.
V2 = {"faster_rcnn_resnet50_fpn_v2": 43_712_278, "mask_rcnn_resnet50_fpn_v2": 46_359_409}
C4 = ("faster_rcnn_", "_c4")
BODIES = [n.removeprefix(C4[0]).removesuffix(C4[1]) for n in CATALOGUE if n.startswith(C4[0]) and n.endswith(C4[1])]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


EXACT = {**RESNETS, **VITS, **MAES, **PREACT, **COUNTED, **DETECTORS}
# More than 60 million parameters, or blocks enough to be as slow; one of 69 million is left to the ordinary tests.
LARGE = {
    "cifar_plain1202", "cifar_resnet1202", "preact_resnet152", "preact_resnet200", "resnet152_v1", "resnext101_32x16d",
    "resnext101_32x32d", "resnext101_32x8d", "resnext101_64x4d", "vit_base_patch16", "vit_huge_patch14",
    "vit_large_patch16", "wide_resnet101_2",
}  # fmt: skip
# Every system once, on the smallest body, and every kind of body in one.
OF_18 = [name for name in CATALOGUE if "rcnn_resnet18" in name or name.startswith("rpn_resnet18")]
OF_BODIES = [
    "faster_rcnn_preact_resnet18_c4",
    "faster_rcnn_preact_resnet18_dc5",
    "faster_rcnn_plain18_fpn",
    "mask_rcnn_resnet50_c4",
    "faster_rcnn_resnext50_32x4d_dc5",
    "mask_rcnn_wide_resnet50_2_fpn",
]


def those(*tasks: str) -> list[Any]:
    """Names of the catalogue. Of its detectors the rest differs from `OF_18` and `OF_BODIES` in depth and width."""
    marks = dict.fromkeys(LARGE, pytest.mark.long)
    names = [name for name, entry in CATALOGUE.items() if entry.task in tasks]
    for name in names:
        if CATALOGUE[name].task != "classify" and name not in OF_18 + OF_BODIES:
            marks[name] = pytest.mark.long
    return [pytest.param(name, marks=marks[name]) if name in marks else name for name in names]


@functools.cache
def counted(name: str, **args: Any) -> int:
    with torch.device("meta"):
        model = CATALOGUE[name].builder(CATALOGUE[name].num_classes, **args)
    return parameters(model)


@pytest.mark.parametrize(("name", "published"), EXACT.items())
def test_has_the_published_number_of_parameters(name, published):
    assert counted(name) == published


@pytest.mark.parametrize(("name", "published"), V2.items())
def test_has_the_published_number_of_parameters_with_heads_of_v2(name, published):
    assert counted(name, norm="batch") == published


@pytest.mark.parametrize("body", BODIES)
def test_detectors_have_the_parameters_of_their_parts(body):
    with torch.device("meta"):
        network = CATALOGUE[body].builder(None, norm="frozen")
    *_, c4, c5 = network.channels
    rest = parameters(network)

    def rpn(channels: int, anchors: int) -> int:
        return (9 * channels + 1) * channels + (channels + 1) * 5 * anchors

    def predictor(width: int) -> int:
        return (width + 1) * 5 * 91

    last = 1024 * 1025 + predictor(1024)
    assert counted(f"faster_rcnn_{body}_c4") == rest + rpn(c4, 15) + predictor(c5)
    assert counted(f"faster_rcnn_{body}_dc5") == rest + rpn(c5, 15) + (49 * c5 + 1) * 1024 + last
    pyramid = sum(256 * (c + 1) for c in network.channels) + 4 * 256 * (9 * 256 + 1)
    heads = (49 * 256 + 1) * 1024 + last
    assert counted(f"faster_rcnn_{body}_fpn") == rest + pyramid + rpn(256, 3) + heads
    masks = 4 * 256 * (9 * 256 + 1) + 256 * (4 * 256 + 1) + 257 * 91
    assert counted(f"mask_rcnn_{body}_fpn") == rest + pyramid + rpn(256, 3) + heads + masks


@pytest.mark.parametrize(("name", "millions"), CIFAR.items())
def test_has_the_published_millions_of_parameters(name, millions):
    digits = len(millions.partition(".")[2])
    assert f"{counted(name) / 1e6:.{digits}f}" == millions


def test_every_classifier_has_a_published_number():
    names = {name for name, entry in CATALOGUE.items() if entry.task == "classify"}
    assert names == (EXACT | CIFAR).keys() - DETECTORS.keys() - MAES.keys()


@pytest.mark.parametrize("name", OF_18)
def test_detectors_take_any_number_of_channels(name):
    """The first convolution is all that differs, as names and shapes show."""
    with torch.device("meta"):
        classes = 2 if name.startswith("rpn_") else 5
        usual, other = (CATALOGUE[name].builder(classes, in_channels=channels).state_dict() for channels in (3, 5))
    differ = {key: tuple(other[key].shape) for key in usual if usual[key].shape != other[key].shape}
    assert usual.keys() == other.keys()
    place = "roi_heads.box_roi_pool" if name.startswith("rcnn_") else "backbone"
    assert differ == {f"{place}.body.conv1.weight": (64, 5, 7, 7)}


@pytest.mark.parametrize("name", those("classify"))
def test_classifiers_run_forward_and_backward(name):
    # Without shortcuts the gradient grows by a sixth a layer, in 1202 to 1e86; float32 ends at 3e38.
    dtype = torch.float64 if name == "cifar_plain1202" else torch.float32
    model = build(name, 5, in_channels=4).to(dtype)
    images = torch.rand(2, 4, 33, 47, dtype=dtype)
    logits = model(images)
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad()
    stages = model.eval().features(images)
    expected = [(2, c, -(-33 // s), -(-47 // s)) for c, s in zip(model.channels, model.strides, strict=True)]
    assert [tuple(stage.shape) for stage in stages] == expected


@pytest.mark.parametrize("name", [*those("detect", "segment"), "mask_rcnn_resnet18_fpn with keypoints"])
def test_detectors_run_forward_and_backward(name):
    masks, alone = name.startswith("mask"), name.startswith("rpn_")
    finds = any(word in name for word in ("faster", "mask", "keypoint"))
    points = {"num_keypoints": 4, "keypoint_channels": 16} if "keypoint" in name else {}
    model = build(name.split()[0], 2 if alone else 4, **small_args(name.split()[0]), **points)
    batch, targets = batch_of(1)
    batch = batch if finds or alone else given(batch)
    losses = model(batch, targets)
    assert ("loss_objectness" in losses) == ("loss_rpn_box_reg" in losses) == (finds or alone)
    assert ("loss_classifier" in losses) == ("loss_box_reg" in losses) == (not alone)
    assert ("loss_mask" in losses) == masks
    assert ("loss_keypoint" in losses) == bool(points)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.inference_mode():
        found = model(batch)
    assert isinstance(found, Detections)
    assert found.boxes.shape == (2, 7, 4)
    assert found.valid.any()
    # Inside the picture, not only inside the padded batch.
    assert (found.boxes[1, found.valid[1]].amax(0) <= torch.tensor([70.0, 50, 70, 50])).all()
    assert (found.masks is not None) == masks
    assert (found.keypoints is not None) == bool(points)
    if found.keypoints is not None:
        assert found.keypoints.shape == (2, 7, 4, 3)
        x, y, sure = found.keypoints.unbind(-1)
        low = found.boxes[..., :2, None]
        high = torch.maximum(found.boxes[..., 2:, None], low + 1)  # less than a pixel counts as one
        inside = (x >= low[:, :, 0]) & (x <= high[:, :, 0]) & (y >= low[:, :, 1]) & (y <= high[:, :, 1])
        assert inside[found.valid].all()
        assert (sure[found.valid] > 0).all() and (sure <= 1).all() and not found.keypoints[~found.valid].any()


@pytest.mark.parametrize("objects", [0, 32])
def test_no_objects_and_as_many_as_fit_give_finite_losses(objects):
    heads = {"mask_channels": 16, "num_keypoints": 4, "keypoint_channels": 16}
    model = build("mask_rcnn_resnet18_fpn", 4, **heads, **SMALL)
    losses = model(*batch_of(objects))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    if not objects:
        assert losses["loss_box_reg"] == losses["loss_mask"] == losses["loss_keypoint"] == 0


def test_objects_without_a_mask_are_left_out_of_the_mask_loss():
    batch, targets = batch_of(1)
    model = build("mask_rcnn_resnet18_fpn", 4, mask_channels=16, **SMALL)
    assert model(batch, targets)["loss_mask"] > 0
    assert model(batch, targets._replace(mask_sizes=torch.zeros_like(targets.mask_sizes)))["loss_mask"] == 0


def test_points_that_nobody_labelled_or_that_lie_outside_are_left_out_of_the_keypoint_loss():
    batch, targets = batch_of(1)
    model = build("keypoint_rcnn_resnet18_fpn", 4, num_keypoints=4, keypoint_channels=16, **SMALL)
    usual = model(batch, targets)["loss_keypoint"]
    # A softmax over 56 × 56 cells that says nothing yet.
    assert usual.item() == pytest.approx(math.log(56**2), abs=0.5)
    hidden, outside = targets.keypoints.clone(), targets.keypoints.clone()
    hidden[..., 2] = 0
    outside[..., 0] = 1000
    for points in (hidden, outside):
        losses = model(batch, targets._replace(keypoints=points))
        assert losses["loss_keypoint"] == 0 and losses["loss_box_reg"] > 0
        sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_soft_nms_is_a_setting_of_the_model():
    batch, _ = batch_of(1)
    found = {}
    for kind in ("hard", "linear", "gaussian"):
        torch.manual_seed(0)
        model = build("faster_rcnn_resnet18_fpn", 4, **{**SMALL, "roi": {**SMALL["roi"], "nms": kind}}).eval()
        with torch.inference_mode():
            found[kind] = model(batch)
        scores = found[kind].scores
        assert (scores[:, 1:] <= scores[:, :-1]).all() and (scores[found[kind].valid] > 0).all()
    assert torch.equal(found["hard"].boxes[:, 0], found["linear"].boxes[:, 0])
    assert not torch.equal(found["hard"].scores, found["gaussian"].scores)
    with pytest.raises(UserError, match=r"roi\.nms is 'firm'; use hard, linear or gaussian"):
        build("faster_rcnn_resnet18_fpn", 4, roi={"nms": "firm"})


def test_mode_does_not_decide_what_comes_out():
    model = build("faster_rcnn_resnet18_fpn", 4, **SMALL)
    batch, targets = batch_of(1)
    assert isinstance(model.train()(batch), Detections)
    assert isinstance(model.eval()(batch, targets), dict)


def test_spec_builds_the_same_again():
    model = build("mask_rcnn_resnet18_fpn", 4, mask_channels=16, **SMALL)
    spec = model.spec
    again = build(spec["name"], spec["num_classes"], spec["conventions"], **spec["args"])
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mask_rcnn_resnet5_fpn", 3), "did you mean 'mask_rcnn_resnet50_fpn'"),
        (("resnet18", -1), "num_classes"),
        (("faster_rcnn_resnet18_fpn", 1), "at least 2"),
        (("resnet18", 3, "caffe"), "conventions"),
        (("mae_vit_base_patch16", 3), "has no classes"),
    ],
)
def test_wrong_arguments_are_named(arguments, said):
    with pytest.raises(UserError, match=said):
        build(*arguments)


def test_unknown_builder_arguments_and_norms_are_named():
    with pytest.raises(UserError, match="did you mean 'fpn_channels'"):
        build("faster_rcnn_resnet18_fpn", 3, fpn_chanels=3)
    with pytest.raises(UserError, match="frozen"):
        build("resnet18", 3, norm="layer")
    with pytest.raises(UserError, match="anchor_sizes"):
        build("faster_rcnn_resnet18_fpn", 3, anchor_sizes=((8,), (16,)))


def test_anchors_by_hand():
    # Areas of 32² with ratios (height over width) 1/2, 1 and 2, rounded to whole pixels.
    assert cell_anchors((32,), (0.5, 1.0, 2.0)).tolist() == [
        [-23, -11, 23, 11],
        [-16, -16, 16, 16],
        [-11, -23, 11, 23],
    ]
    cells = torch.tensor([[[-1.0, -1, 1, 1], [-2, -2, 2, 2]], [[-5, -5, 5, 5], [-6, -6, 6, 6]]])
    levels = [torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 1, 2)]
    grid = anchors_at(anchor_grid(cells, levels, (8, 12)), torch.arange(16))
    # Level by level, row by row, cell by cell, anchor by anchor.
    assert grid[0].tolist() == [-1, -1, 1, 1]
    assert grid[1].tolist() == [-2, -2, 2, 2]
    assert grid[2].tolist() == [3, -1, 5, 1]
    assert grid[6].tolist() == [-1, 3, 1, 5]
    assert grid[11].tolist() == [6, 2, 10, 6]
    assert grid[12:].tolist() == [[-5, -5, 5, 5], [-6, -6, 6, 6], [1, -5, 11, 5], [0, -6, 12, 6]]
    # 9 cells over 544 pixels, as on P6 where P5 has 17: 60 pixels apart.
    tall = anchor_grid(torch.tensor([[[0.0, 0, 1, 1]]]), [torch.zeros(1, 1, 9, 1)], (544, 64))
    assert anchors_at(tall, torch.tensor(8)).tolist() == [0, 480, 1, 481]
