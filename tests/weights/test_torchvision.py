from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import detection

import tracesight as ts
from tracesight.errors import UserError
from tracesight.models.build import CATALOGUE
from tracesight.weights import torchvision as source
from tracesight.weights.published import Published


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Every tensor random, statistics of norms included, so that none could be left out unseen."""
    torch.manual_seed(1)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if name.endswith("running_var") else tensor.normal_(0, 0.05)
    return model.eval()


def theirs(name: str, **more: Any) -> torch.nn.Module:
    return randomised(getattr(detection, name)(weights=None, weights_backbone=None, num_classes=3, **more))


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    back = {new: old for old, new in source.KEYS.items()}
    return {back.get(name, name): tensor for name, tensor in state.items()}


def same(model: torch.nn.Module, state: dict[str, Tensor]) -> bool:
    ours = model.state_dict()
    return all(torch.equal(ours[name], state[name]) for name in ours if not name.endswith("num_batches_tracked"))


def test_every_tensor_is_accounted_for(tmp_path: Path) -> None:
    model = randomised(torchvision.models.resnet18(num_classes=5))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    ours = ts.build("resnet18", num_classes=5).eval()
    receipt = ts.load_weights(ours, tmp_path / "w.safetensors", source="torchvision")
    assert len(receipt.matched) + len(receipt.dropped) == len(model.state_dict())
    assert all(name.endswith("num_batches_tracked") for name in receipt.dropped)
    assert (receipt.new, receipt.resized, receipt.conventions) == ((), (), "torchvision")
    assert receipt.sha256 == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    assert same(ours, model.state_dict())


def test_a_network_that_is_built_otherwise_takes_no_weights_whose_names_fit() -> None:
    ours = ts.build("resnet50_v1", num_classes=5)
    state = torchvision.models.resnet50(num_classes=5).state_dict()
    assert {n for n in state if not n.endswith("num_batches_tracked")} <= set(ours.state_dict())
    with pytest.raises(UserError, match="source 'torchvision' has no weights for resnet50_v1; none are known for it"):
        ts.load_weights(ours, state, source="torchvision")
    with pytest.raises(UserError, match="source 'cifar' has no weights for resnet18; known for it: torchvision, timm"):
        ts.load_weights(ts.build("resnet18", num_classes=5), state, source="cifar")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kind", ["fasterrcnn", "maskrcnn", "keypointrcnn"])
def test_detectors_load_under_current_and_old_names(kind: str, old: bool, tmp_path: Path) -> None:
    model = theirs(f"{kind}_resnet50_fpn")
    state = old_names(model.state_dict()) if old else model.state_dict()
    assert ("rpn.head.conv.weight" in state) is old
    # Their own reader, which renames what has no version, accepts our table.
    model.load_state_dict(dict(state))
    torch.save(state, tmp_path / "w.pth")
    ours = ts.build(f"{kind.replace('rcnn', '_rcnn')}_resnet50_fpn", num_classes=3)
    receipt = ts.load_weights(ours, tmp_path / "w.pth", source="torchvision")
    assert same(ours, model.state_dict())
    assert set(receipt.matched) == {n for n in model.state_dict() if not n.endswith("num_batches_tracked")}
    assert "BSD" in receipt.licence
    assert "unknown" in receipt.licence


def test_and_back_again() -> None:
    ours = randomised(ts.build("mask_rcnn_resnet50_fpn", num_classes=3, norm="batch"))
    model = theirs("maskrcnn_resnet50_fpn")
    assert not same(ours, model.state_dict())
    model.load_state_dict(source.from_tracesight(ours.state_dict()), strict=True)
    assert same(ours, model.state_dict())


def test_every_old_name_is_one_that_torchvision_renames() -> None:
    current = set(theirs("maskrcnn_resnet50_fpn").state_dict())
    assert set(source.KEYS.values()) <= current
    assert not set(source.KEYS) & current


def test_a_head_is_replaced_only_when_asked() -> None:
    model = theirs("fasterrcnn_resnet50_fpn")
    ours = ts.build("faster_rcnn_resnet50_fpn", num_classes=8)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(UserError, match=r"cls_score\.weight' has shape \(3, 1024\).*\(8, 1024\).*and 3 more.*skip"):
        ts.load_weights(ours, model.state_dict(), source="torchvision")
    assert all(torch.equal(before[n], t) for n, t in ours.state_dict().items()), "an error changes nothing"
    receipt = ts.load_weights(ours, model.state_dict(), source="torchvision", skip=("roi_heads.box_predictor",))
    assert len(receipt.new) == 4
    assert all(name.startswith("roi_heads.box_predictor.") for name in receipt.new)
    assert set(receipt.new) <= set(receipt.dropped)
    assert all(torch.equal(before[name], ours.state_dict()[name]) for name in receipt.new)
    assert torch.equal(
        ours.state_dict()["rpn.head.cls_logits.weight"], model.state_dict()["rpn.head.cls_logits.weight"]
    )
    with pytest.raises(UserError, match=r"skip='roi_heads\.box_pred' meets no tensor"):
        ts.load_weights(ours, model.state_dict(), source="torchvision", skip=("roi_heads.box_pred",))


def test_a_classifier_becomes_a_backbone_when_asked() -> None:
    model = randomised(torchvision.models.resnet18())
    ours = ts.build("mask_rcnn_resnet18_fpn", num_classes=3)
    with pytest.raises(UserError, match="part='backbone'"):
        ts.load_weights(ours, model.state_dict(), source="torchvision")
    receipt = ts.load_weights(ours, model.state_dict(), source="torchvision", part="backbone")
    assert all(name.startswith("backbone.body.") for name in receipt.matched)
    assert {"fc.weight", "fc.bias"} <= set(receipt.dropped)
    assert "rpn.head.cls_logits.weight" in receipt.new
    assert "only the backbone was loaded" in str(receipt)
    body = {name.removeprefix("backbone.body."): t for name, t in ours.state_dict().items() if ".body." in name}
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in body.items())
    with pytest.raises(UserError, match="this is a detector"):
        ts.load_weights(ours, ours.state_dict(), source="torchvision", part="backbone")


def test_conventions_must_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = theirs("fasterrcnn_resnet50_fpn").state_dict()
    torch.save(state, tmp_path / "w.pth")
    plain = ts.build("faster_rcnn_resnet50_fpn", num_classes=3)
    zero = ts.build("faster_rcnn_resnet50_fpn", num_classes=3, conventions="torchvision-coco-v1")
    with pytest.raises(UserError, match="has the conventions 'torchvision', the model was built with"):
        ts.load_weights(zero, state, source="torchvision")
    with pytest.raises(UserError, match="has the conventions 'torchvision-coco-v1'"):
        ts.load_weights(plain, state, source="torchvision", conventions="torchvision-coco-v1")
    with pytest.raises(UserError, match="has no conventions 'detectron2'"):
        ts.load_weights(plain, state, source="torchvision", conventions="detectron2")
    assert ts.load_weights(plain, state, "torchvision", conventions="tracesight").conventions == "torchvision"
    receipt = ts.load_weights(zero, state, source="torchvision", conventions="torchvision-coco-v1")
    assert receipt.conventions == "torchvision-coco-v1"
    # A published file is known by its content, whatever it is called and whatever the caller says.
    known = Published("fasterrcnn_resnet50_fpn COCO v1", "torchvision-coco-v1", "COCO", 91, "BSD-3-Clause")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    monkeypatch.setitem(source.PUBLISHED, digest[:8], known)
    with pytest.raises(UserError, match="the model was built with 'tracesight'"):
        ts.load_weights(plain, tmp_path / "w.pth", source="torchvision")
    with pytest.raises(UserError, match="COCO v1, whose conventions"):
        ts.load_weights(plain, tmp_path / "w.pth", source="torchvision", conventions="torchvision")
    assert "BSD-3-Clause" in ts.load_weights(zero, tmp_path / "w.pth", source="torchvision").licence


def test_published_digests_are_those_in_torchvisions_own_file_names() -> None:
    names = [name for name, entry in CATALOGUE.items() if entry.task == "classify" and "torchvision" in entry.weights]
    names += [f"{kind}rcnn_resnet50_fpn{version}" for kind in ("faster", "mask") for version in ("", "_v2")]
    urls = [weights.url for name in names for weights in torchvision.models.get_model_weights(name)]
    assert len(names) >= 7
    assert {url.rsplit("-", 1)[1].removesuffix(".pth") for url in urls} <= set(source.PUBLISHED)


def test_what_is_missing_unmapped_or_no_tensor_is_named(tmp_path: Path) -> None:
    state = randomised(torchvision.models.resnet18(num_classes=5)).state_dict()
    ours = ts.build("resnet18", num_classes=5)
    with pytest.raises(UserError, match=r"'layer1\.0\.conv1\.weight' of the model is missing"):
        ts.load_weights(ours, {n: t for n, t in state.items() if n != "layer1.0.conv1.weight"}, "torchvision")
    with pytest.raises(UserError, match="'extra' of the checkpoint has no place"):
        ts.load_weights(ours, {**state, "extra": torch.zeros(1)}, "torchvision")
    with pytest.raises(UserError, match="'optimizer' is not a tensor"):
        ts.load_weights(ours, {**state, "optimizer": {}}, "torchvision")
    with pytest.raises(UserError, match="norm='frozen'"):
        ts.load_weights(ts.build("resnet18", num_classes=5, norm="group"), state, "torchvision")
    with pytest.raises(UserError, match="unknown source 'keras'"):
        ts.load_weights(ours, state, "keras")


class _Bomb:
    def __reduce__(self) -> tuple:
        return (pytest.fail, ("the pickle was run",))


def test_files_that_run_code_or_are_damaged_are_refused_in_one_line(tmp_path: Path) -> None:
    ours = ts.build("resnet18", num_classes=5)
    torch.save({"model": _Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "w.h5").write_text("hello")
    for name, message in {
        "bomb.pth": "refused",
        "text.pth": r"text\.pth",
        "text.safetensors": "cannot be read",
        "w.h5": "unknown kind",
        "gone.pth": "no such file",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            ts.load_weights(ours, tmp_path / name, "torchvision")
        assert "\n" not in str(caught.value)


def test_coco_names_are_torchvisions() -> None:
    theirs = torchvision.models.get_model_weights("maskrcnn_resnet50_fpn").COCO_V1.meta["categories"]
    assert list(source.coco_categories().values()) == theirs[1:]
    assert list(source.coco_categories()) == list(range(1, 91))
    assert list(source.coco_categories().values()).count("N/A") == 10
