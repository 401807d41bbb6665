from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

import tracesight as ts
from tracesight.errors import UserError
from tracesight.weights.timm import from_tracesight


def state_of(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=4).state_dict()


def test_both_ways(tmp_path: Path) -> None:
    state = state_of("resnet18")
    torch.save({"epoch": 3, "arch": "resnet18", "state_dict": state}, tmp_path / "checkpoint.pth")
    ours = ts.build("resnet18", num_classes=4)
    receipt = ts.load_weights(ours, tmp_path / "checkpoint.pth", source="timm")
    assert (receipt.new, receipt.conventions) == ((), "torchvision")
    assert all(name.endswith("num_batches_tracked") for name in receipt.dropped)
    assert "CC-BY-NC" in receipt.licence
    back = timm.create_model("resnet18", pretrained=False, num_classes=4)
    back.load_state_dict(from_tracesight(ours.state_dict()), strict=True)
    assert all(torch.equal(tensor, state[name]) for name, tensor in back.state_dict().items() if "num_b" not in name)


def test_a_classifier_becomes_a_backbone() -> None:
    ours = ts.build("faster_rcnn_resnet18_fpn", num_classes=3)
    receipt = ts.load_weights(ours, state_of("resnet18"), source="timm", part="backbone")
    assert "backbone.body.layer4.1.bn2.running_var" in receipt.matched
    with pytest.raises(UserError, match="source 'timm' has no weights for faster_rcnn_resnet18_fpn"):
        ts.load_weights(ours, state_of("resnet18"), source="timm")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet50d", r"'conv1\.0\.weight' is of a deep stem: of timm's, only networks built as torchvision's"),
        ("resnet50c", r"'conv1\.0\.weight'"),
        ("resnet50_gn", r"'bn1\.running_mean' is missing, as in networks with group norm"),
        ("seresnet50", r"'layer1\.0\.se\.fc1\.weight' of the checkpoint has no place"),
        ("resnetv2_50", r"of the checkpoint has no place"),
        ("resnet34", r"'layer1\.0\.conv1\.weight' has shape \(64, 64, 3, 3\) in the checkpoint"),
    ],
)
def test_other_networks_of_timms_are_refused(name: str, said: str) -> None:
    ours = ts.build("resnet50", num_classes=4)
    before = ours.fc.weight.clone()
    with pytest.raises(UserError, match=said) as caught:
        ts.load_weights(ours, state_of(name), source="timm")
    assert "\n" not in str(caught.value)
    assert torch.equal(ours.fc.weight, before)


def test_pooled_shortcuts_are_refused_behind_a_plain_stem() -> None:
    state = {n: t for n, t in state_of("resnet50d").items() if not n.startswith("conv1.")}
    state["conv1.weight"] = torch.zeros(64, 3, 7, 7)
    with pytest.raises(UserError, match=r"'layer1\.0\.downsample\.1\.weight' follows an average pooling"):
        ts.load_weights(ts.build("resnet50", num_classes=4), state, source="timm")
