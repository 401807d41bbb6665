"""Checkpoints of MoCo as the authors' scripts write them, torchvision's networks inside: both ways, same features."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn

import tracesight as ts
from tracesight.cli import _status as main_status
from tracesight.errors import UserError
from tracesight.models.encode import pooled
from tracesight.models.methods import build_method
from tracesight.training.initial import build_classifier
from tracesight.weights import moco, moco_v3


def theirs(source):
    """{"state_dict": …} of a method around torchvision's ResNet-18 with statistics of its own, and that network."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=8)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    width = network.fc.in_features
    if source == "moco":
        network.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), network.fc)
        parts = {"encoder_q": network, "encoder_k": copy.deepcopy(network)}
    else:
        head = [nn.Linear(width, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4, bias=False)]
        network.fc = nn.Sequential(*head, nn.BatchNorm1d(4, affine=False))
        predictor = nn.Sequential(
            nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4, bias=False)
        )
        parts = {"base_encoder": network, "momentum_encoder": copy.deepcopy(network), "predictor": predictor}
    state = {f"module.{part}.{name}": value for part, m in parts.items() for name, value in m.state_dict().items()}
    if source == "moco":
        state |= {"module.queue": torch.randn(8, 16), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    return {"epoch": 200, "arch": "resnet18", "state_dict": state}, network.eval()


@pytest.mark.parametrize(("source", "table"), [("moco", moco), ("moco_v3", moco_v3)])
def test_both_ways_and_the_same_features(source, table, tmp_path):
    checkpoint, network = theirs(source)
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    encoder = ts.build("resnet18", 0).eval()
    receipt = ts.load_weights(encoder, tmp_path / "checkpoint.pth", source=source)
    state = checkpoint["state_dict"]
    assert {name for name in state if not table.keeps(name)} == set(receipt.dropped)
    assert len(receipt.matched) + len(receipt.dropped) == len(state) and "CC BY-NC" in receipt.licence
    network.fc = nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(pooled(encoder, x), network(x), rtol=0, atol=1e-5)
    back = table.from_tracesight(encoder.state_dict())
    assert back.keys() == {name for name in state if table.keeps(name)}
    assert all(torch.equal(back[name], state[name]) for name in back)
    # As the body of a detector, too.
    detector = ts.build("faster_rcnn_resnet18_fpn", norm="frozen")
    ts.load_weights(detector, tmp_path / "checkpoint.pth", source=source, part="backbone")
    assert torch.equal(detector.backbone.body.layer4[1].conv2.weight, encoder.layer4[1].conv2.weight)


@pytest.mark.parametrize(("source", "name"), [("moco", "moco-v2"), ("moco_v3", "moco-v3")])
def test_whole_methods_have_the_authors_names(source, name):
    state = theirs(source)[0]["state_dict"]
    numbers = {"dim": 8, "queue": 16} if source == "moco" else {"dim": 4, "hidden": 8}
    method = build_method(name, "resnet18", {}, numbers)
    method.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    assert torch.equal(method.state_dict()[next(iter(state)).removeprefix("module.")], next(iter(state.values())))


def their_vit(width, heads):
    """{"state_dict": …} of MoCo v3 around timm's ViT with patches of 4 for 32 pixels, and that network without head."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 4, "embed_dim": width, "depth": 12, "num_heads": heads, "num_classes": 1}
    network = timm.models.VisionTransformer(**sizes)
    nn.init.normal_(network.cls_token)
    head = []
    for inward in (width, 8):
        head += [nn.Linear(inward, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU()]
    network.head = nn.Sequential(*head, nn.Linear(8, 4, bias=False), nn.BatchNorm1d(4, affine=False))
    predictor = nn.Sequential(
        nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4, bias=False),
        nn.BatchNorm1d(4, affine=False),
    )  # fmt: skip
    parts = {"base_encoder": network, "momentum_encoder": copy.deepcopy(network), "predictor": predictor}
    state = {f"module.{part}.{name}": value for part, m in parts.items() for name, value in m.state_dict().items()}
    return {"epoch": 300, "arch": "vit", "state_dict": state}, network.eval()


def test_transformers_both_ways_and_the_same_tokens(tmp_path):
    checkpoint, network = their_vit(192, 3)
    state = checkpoint["state_dict"]
    torch.save(checkpoint, tmp_path / "vit.pth")
    encoder = ts.build("vit_tiny_patch4", 0).eval()
    receipt = ts.load_weights(encoder, tmp_path / "vit.pth", source="moco_v3")
    assert {name for name in state if not moco_v3.keeps(name)} == set(receipt.dropped)
    assert len(receipt.matched) + len(receipt.dropped) == len(state) and "CC BY-NC" in receipt.licence
    assert receipt.new == () and "head.0.weight" not in receipt.matched
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.tokens(x), network.forward_features(x), rtol=0, atol=1e-5)
    back = moco_v3.from_tracesight(encoder.state_dict())
    assert back.keys() == {name for name in state if moco_v3.keeps(name)}
    assert all(torch.equal(back[name], state[name]) for name in back)
    classifier = ts.build("vit_tiny_patch4", 7)
    assert moco_v3.from_tracesight(classifier.state_dict()).keys() == back.keys()
    with pytest.raises(UserError, match=r"head\.weight.*missing.*skip=\('head',\)"):
        ts.load_weights(classifier, state, source="moco_v3")
    # The whole of it has the authors' names and shapes, heads included.
    method = build_method("moco-v3", "vit_tiny_patch4", {}, {"dim": 4, "hidden": 8})
    method.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    assert torch.equal(method.predictor[4].running_var, state["module.predictor.4.running_var"])


def test_heads_of_attention_are_those_of_the_authors(tmp_path, monkeypatch):
    assert moco_v3.ARGS == {"vit_small_patch16": {"heads": 12}}
    monkeypatch.setattr(moco_v3, "ARGS", {"vit_tiny_patch4": {"heads": 6}})  # a smaller network will do
    state = their_vit(192, 6)[0]["state_dict"]
    with pytest.raises(UserError, match="vit_tiny_patch4 has 6 heads of attention, this one 3: build it with heads=6"):
        ts.load_weights(ts.build("vit_tiny_patch4", 0), state, "moco_v3")
    torch.save({"state_dict": state}, tmp_path / "vit.pth")
    words = ["weights", "import", str(tmp_path / "vit.pth"), "--source", "moco_v3", "--model", "vit_tiny_patch4"]
    assert main_status([*words, "--out", str(tmp_path / "vit")]) == 0
    bundle = ts.load(tmp_path / "vit")
    assert bundle.spec["args"] == {"heads": 6, "image_size": 32, "in_channels": 3} and bundle.task == "features"
    with pytest.raises(UserError, match="vit_tiny_patch4 has 6 heads of attention in the bundle and 3 in the model"):
        build_classifier("vit_tiny_patch4", {"heads": 3}, categories={1: "a"}, seed=0, begun=bundle)


def test_what_is_refused(tmp_path, capsys):
    checkpoint, _ = theirs("moco")
    with pytest.raises(UserError, match=r"begins with 'module\.base_encoder\.'"):
        ts.load_weights(ts.build("resnet18", 0), checkpoint["state_dict"], source="moco_v3")
    with pytest.raises(UserError, match=r"fc\.weight.*missing"):
        ts.load_weights(ts.build("resnet18"), checkpoint["state_dict"], source="moco")
    with pytest.raises(UserError, match="no weights for cifar_resnet20"):
        ts.load_weights(ts.build("cifar_resnet20", 0), checkpoint["state_dict"], source="moco")
    torch.save(checkpoint, tmp_path / "a.pth")
    words = ["weights", "import", str(tmp_path / "a.pth"), "--source", "moco", "--model", "resnet18"]
    assert main_status([*words, "--out", str(tmp_path / "bundle")]) == 0
    assert ts.load(tmp_path / "bundle").task == "features" and "CC BY-NC" in capsys.readouterr().out
