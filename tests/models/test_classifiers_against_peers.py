"""Same weights, same pictures: logits and gradients of every classifier that torchvision or timm has too."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from tracesight.models.build import CATALOGUE, build
from tracesight.weights import load_weights

_PEERS = ("torchvision", "timm")
# More than 60 million parameters, or many tokens: they take long, and each has a smaller one of its kind.
LARGE = {
    "wide_resnet101_2", "wide_resnet50_2", "resnext101_32x8d", "resnext101_32x16d", "resnext101_32x32d",
    "resnext101_64x4d", "resnet152", "vit_base_patch16", "vit_large_patch16", "vit_huge_patch14",
    "vit_small_patch16", "vit_tiny_patch4",
}  # fmt: skip


def shared() -> list[Any]:
    pairs = [(s, n) for n, e in CATALOGUE.items() if e.task == "classify" for s in e.weights if s in _PEERS]
    return [pytest.param(*pair, marks=pytest.mark.long) if pair[1] in LARGE else pair for pair in pairs]


def trained(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Random norms, none of which begins at 0, with the statistics of `images`, so that no stage runs away."""
    model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def made(source: str, name: str) -> nn.Module:
    if source == "timm" and name in ("vit_tiny_patch4", "vit_tiny_patch8"):  # timm has the parts alone
        side, patch = {"vit_tiny_patch4": (32, 4), "vit_tiny_patch8": (224, 8)}[name]
        sizes: dict[str, Any] = {"img_size": side, "patch_size": patch, "embed_dim": 192, "num_heads": 3}
        return timm.models.VisionTransformer(num_classes=7, dynamic_img_size=True, **sizes)
    if source == "timm" and name.startswith("vit_"):
        return timm.create_model(f"{name}_224", pretrained=False, num_classes=7, dynamic_img_size=True, img_size=224)
    if source == "timm":
        return timm.create_model(name, pretrained=False, num_classes=7)
    return torchvision.models.get_model(name, weights=None, num_classes=7)


@pytest.mark.parametrize(("source", "name"), shared())
def test_logits_and_gradients_are_theirs(source, name):
    torch.manual_seed(0)
    side = 70 if name.endswith("patch14") else 64  # timm takes whole patches alone
    images = torch.rand(2, 3, side, side)
    theirs = trained(made(source, name), images)
    ours = build(name, 7).eval()
    receipt = load_weights(ours, theirs.state_dict(), source=source)
    assert len(receipt.matched) + len(receipt.dropped) == len(theirs.state_dict())
    our_logits, their_logits = ours(images), theirs(images)
    assert their_logits.std() > 0.1
    assert torch.allclose(our_logits, their_logits, rtol=0, atol=1e-4)
    our_logits.square().sum().backward()
    their_logits.square().sum().backward()
    gradients = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    assert gradients.keys() == {key for key, _ in ours.named_parameters()}
    for key, parameter in ours.named_parameters():
        assert (parameter.grad - gradients[key]).norm() <= 1e-4 * gradients[key].norm(), key


def test_statistics_in_training_are_theirs():
    torch.manual_seed(0)
    images = torch.rand(4, 3, 64, 64)
    theirs = trained(made("torchvision", "resnet50"), images).train()
    ours = build("resnet50", 7)
    load_weights(ours, theirs.state_dict(), source="torchvision")
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    assert torch.allclose(ours.train()(images), theirs(images), rtol=0, atol=1e-4)
    state = theirs.state_dict()
    assert all(
        torch.allclose(value, state[key], atol=1e-5) for key, value in ours.state_dict().items() if "running" in key
    )


PREACT = {"norm1": "bn1", "norm2": "bn2", "norm3": "bn3", "downsample.conv": "downsample.0"}


def test_preactivation_equals_timms_where_no_scale_is_negative():
    """timm pools before the first norm, we after it; without training that is the same where scales are positive.

    Not of 18 and 34 layers: there timm's first shortcut goes round that norm, and the paper's does not.
    """
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64)
    theirs = trained(timm.create_model("resnetv2_50", pretrained=False, num_classes=7), images)
    ours = build("preact_resnet50", 7).eval()
    renamed = {}
    for name, tensor in theirs.state_dict().items():
        parts = name.split(".")
        if parts[0] == "stages":
            stage, unit, rest = int(parts[1]), int(parts[3]), ".".join(parts[4:])
            for old, new in PREACT.items():
                rest = rest.replace(old, new)
            name = f"layer{stage + 1}.{unit}.{rest}"
            if unit == 0 and rest.startswith("bn1."):  # the activation that both ways share ends the stage before
                name = f"norms.{stage - 1}.{parts[-1]}" if stage else f"bn1.{parts[-1]}"
        renamed[name.replace("stem.conv", "conv1").replace("head.fc", "fc").replace("norm.", "norms.3.")] = tensor
    renamed["fc.weight"] = renamed["fc.weight"].flatten(1)
    ours.load_state_dict(renamed)
    assert torch.allclose(ours(images), theirs(images), rtol=0, atol=1e-4)
