"""What the residual networks are made of, by hand and against the papers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from small_detector import SMALL, batch_of
from torch import Tensor, nn

from tracesight.errors import UserError
from tracesight.models.build import build
from tracesight.models.cifar_resnet import cifar_preact_bottleneck, cifar_preact_resnet, cifar_resnet
from tracesight.models.preact_resnet import preact_resnet
from tracesight.models.rcnn import rcnn_fpn
from tracesight.models.resnet import BasicBlock, Bottleneck, PaddedIdentity
from tracesight.ops.drop_path import drop_path_scales

KEYS = torch.tensor([[3, 0], [3, 1], [3, 2]])


def random_norms(model: nn.Module) -> nn.Module:
    """Norms that are not the identity, with statistics as they would be after training."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def test_padded_identity_by_hand():
    x = torch.arange(2 * 3 * 4.0).view(1, 2, 3, 4)
    y = PaddedIdentity(2, 5, 2)(x)
    assert y.shape == (1, 5, 2, 2)
    assert y[0, 1].tolist() == [[0, 2], [8, 10]]
    assert y[0, 2].tolist() == [[12, 14], [20, 22]]
    assert y[0, [0, 3, 4]].abs().sum() == 0


def projections(model: nn.Module) -> int:
    return sum(name.endswith("downsample.0.weight") for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("name", "shortcut", "projected"),
    [
        ("resnet18", "A", 0),
        ("resnet18", "B", 3),
        ("resnet18", "C", 8),
        ("resnet50", "A", 0),
        ("resnet50", "B", 4),
        ("resnet50", "C", 16),
        ("preact_resnet50", "A", 0),
        ("preact_resnet50", "B", 4),
        ("cifar_resnet20", "A", 0),
        ("cifar_resnet20", "B", 2),
        ("cifar_resnet20", "C", 9),
    ],
)
def test_shortcuts_project_where_their_option_says(name, shortcut, projected):
    model = build(name, 3, shortcut=shortcut)
    assert projections(model) == projected
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("resnet18", {"shortcut": "D"}, "shortcut is 'D'"),
        ("resnet18", {"drop_path": 1.0}, "drop_path is 1.0"),
        ("resnet18", {"zero_init": True, "norm": "frozen"}, "norm='batch' or norm='group'"),
        ("plain18", {"shortcut": "A"}, "no argument 'shortcut'"),
        ("preact_resnet18", {"zero_init": True}, "no argument 'zero_init'"),
    ],
)
def test_what_cannot_be_built_is_said(name, args, said):
    with pytest.raises(UserError, match=said):
        build(name, 3, **args)


def test_version_1_strides_on_the_first_convolution():
    for name, strides in (("resnet50_v1", (2, 1)), ("resnet50", (1, 2))):
        block = build(name, 3).layer2[0]
        assert (block.conv1.stride[0], block.conv2.stride[0]) == strides
    x = torch.rand(1, 256, 9, 7)
    old = random_norms(Bottleneck(256, 128, 2, nn.BatchNorm2d, stride_first=True))
    # A 1×1 convolution of stride 2 sees every second cell and nothing else.
    out = F.relu(old.bn1(F.conv2d(x[:, :, ::2, ::2], old.conv1.weight)))
    out = F.relu(old.bn2(F.conv2d(out, old.conv2.weight, padding=1)))
    out = old.bn3(F.conv2d(out, old.conv3.weight)) + old.downsample(x)
    assert torch.allclose(old(x), F.relu(out), atol=1e-5)


@pytest.mark.parametrize("make", [partial(BasicBlock, 64, 64), partial(Bottleneck, 256, 64)])
def test_a_residual_can_be_scaled_or_left_out(make):
    block = random_norms(make(1, nn.BatchNorm2d))
    with torch.no_grad():
        block.last_norm.bias.add_(9.0)  # so that the last ReLU cuts nothing off
    x = torch.rand(2, 64 if isinstance(block, BasicBlock) else 256, 8, 8)
    residual = block(x) - x
    scaled = block(x, torch.tensor([0.0, 2.0]).view(2, 1, 1, 1))
    assert torch.equal(scaled[0], x[0])
    assert torch.allclose(scaled[1], 2 * residual[1] + x[1], atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "cifar_resnet20"])
def test_blocks_begin_as_the_identity_where_asked(name):
    torch.manual_seed(0)
    model = build(name, 3, zero_init=True)
    x = torch.rand(2, model.channels[0], 8, 8)
    assert torch.equal(model.layer1[1](x), x)
    assert not torch.equal(build(name, 3).layer1[1](x), x)
    assert build(name, 3, zero_init=True, norm="group").layer1[1](x).equal(x)


def reference(model: nn.Module, x: Tensor, first: int) -> Tensor:
    """The units of "Identity Mappings" one after another, in the order of the authors' code; first: stride's place."""
    norms = [model.bn1, *model.norms]
    x = F.conv2d(x, model.conv1.weight, padding=1)
    for number, stage in enumerate(model.stages):
        for index, unit in enumerate(stage):
            # The common norm where the shape changes; else the residual's own.
            activated = F.relu((norms[number] if index == 0 else unit.bn1)(x))
            stride = 2 if number and index == 0 else 1
            way = activated
            for place, name in enumerate(n for n, _ in unit.named_children() if n.startswith("conv")):
                if place:
                    way = F.relu(unit.get_submodule(f"bn{place + 1}")(way))
                weight = unit.get_submodule(name).weight
                way = F.conv2d(way, weight, stride=stride if place == first else 1, padding=weight.shape[2] // 2)
            around = activated if index == 0 else x
            if unit.downsample is not None:
                around = unit.downsample(around)
            x = way + around
    return model.fc(F.relu(norms[3](x)).mean((2, 3)))


@pytest.mark.parametrize("make", [cifar_preact_resnet, cifar_preact_bottleneck])
def test_preactivation_on_cifar_is_the_authors(make):
    torch.manual_seed(0)
    model = random_norms(make(20))
    assert [len(stage) for stage in model.stages] == ([3, 3, 3] if make is cifar_preact_resnet else [2, 2, 2])
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(model(x), reference(model, x, 0), atol=1e-4)
    assert model(x).abs().max() > 1e-2


def test_blocks_are_left_out_by_the_keys_of_their_pictures():
    torch.manual_seed(0)
    x = torch.rand(3, 3, 32, 32)
    model = random_norms(cifar_resnet(20, drop_path=0.6))
    whole = random_norms(cifar_resnet(20))
    whole.load_state_dict(model.state_dict())
    assert torch.equal(model(x), whole(x)), "without keys nothing is left out"
    assert torch.equal(whole(x, KEYS), whole(x))
    dropped = model(x, KEYS)
    assert not torch.allclose(dropped, model(x))
    assert torch.equal(dropped, model(x, KEYS))
    for one in range(3):
        assert torch.allclose(dropped[one], model(x[one:], KEYS[one:])[0], atol=1e-5), "whatever its batch"
    # The same by hand, the last picture.
    scales, y = drop_path_scales(KEYS, 9, 0.6), model.stem(x[2:])
    for number, block in enumerate(block for stage in model.stages for block in stage):
        y = (
            block(y)
            if block.downsample is None and scales[number, 2] == 1
            else block(y, scales[number, 2:, None, None, None])
        )
    assert torch.allclose(dropped[2], model.fc(y.mean((2, 3)))[0], atol=1e-5)
    assert (scales[:, 2] == 0).any()


def test_other_backbones_go_under_a_pyramid():
    model = rcnn_fpn(partial(preact_resnet, 18), "mask", 4, mask_channels=16, **SMALL)
    batch, targets = batch_of(1)
    losses = model(batch, targets)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_detectors_take_any_channels():
    model = build("mask_rcnn_resnet18_fpn", 4, in_channels=5, mask_channels=16, **SMALL)
    batch, targets = batch_of(1)
    five = batch._replace(images=torch.rand(2, 5, 64, 96))
    assert all(loss.isfinite() for loss in model(five, targets).values())
    assert model.pixel_mean.shape == model.pixel_std.shape == (1, 5, 1, 1)
