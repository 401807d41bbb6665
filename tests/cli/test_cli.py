from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from commands import Run
from small_networks import picture, small_bundle

import tracesight as ts
from tracesight.cli.train import split_arguments
from tracesight.errors import PartialFailure, UserError
from tracesight.models.build import CATALOGUE
from tracesight.predict import find_pictures, write
from tracesight.scene import Scene
from tracesight.weights import torchvision as source
from tracesight.weights.published import Published

COMMANDS = [
    "",
    "demo",
    "train",
    "evaluate",
    "predict",
    "weights",
    "weights import",
    "models",
    "data",
    "data check",
    "data convert",
    "data manifest",
    "data split",
    "data diff",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from tracesight.cli import _status; _status(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'PIL', 'matplotlib', 'safetensors'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command.split(), "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: tracesight")


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, tracesight; tracesight.__version__, dir(tracesight); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert set(ts.__all__) <= set(dir(ts))
    assert ts.Scene is Scene
    with pytest.raises(AttributeError, match="nothing"):
        ts.nothing  # noqa: B018


def test_mistakes_in_the_command_line_are_one_line(run: Run) -> None:
    for arguments, message in [
        (["predict", "--frob"], "error: No such option: --frob"),
        (["predict"], "error: Missing"),
        (["bogus"], "error: No such command 'bogus'"),
        (["weights"], "error: Missing command"),
        (["predict", "b", "p", "--out", "o", "--threshold", "7"], "--threshold"),
        (["train", "data", "--task", "guess", "--out", "r"], "--task guess"),
        (["evaluate", "nowhere", "data"], "nowhere: no such folder"),
    ]:
        status, out, err = run(*arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (UserError("data.json: no"), 2, "error: data.json: no\n"),
        (PartialFailure("a.png: no"), 1, "error: a.png: no\n"),
        (KeyboardInterrupt(), 130, None),
    ],
)
def test_statuses(run: Run, monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int, line: str) -> None:
    def fail(_: Any) -> None:
        raise raised

    monkeypatch.setattr("tracesight.bundle.load", fail)
    got, _, err = run("predict", "b", "p", "--out", "o")
    assert got == status
    assert line is None or err == line


def test_predict_writes_reports_and_says_so_by_its_status(run: Run, tmp_path: Path) -> None:
    bundle = small_bundle(thresholds={"operating": 0.0})
    bundle.save(tmp_path / "b")
    for name in ("one.png", "sub/two.png"):
        picture(tmp_path / "in" / name)
    status, out, _ = run("predict", tmp_path / "b", tmp_path / "in", "--out", tmp_path / "out", "--json")
    facts = json.loads(out)
    assert status == 0
    assert (facts["pictures"], facts["failed"], facts["bundle"]) == (2, [], bundle.digest)
    scene = Scene.load(tmp_path / "out" / "scenes" / "sub" / "two.json")
    assert facts["objects"] == 2 * len(scene.objects) > 0
    assert (tmp_path / "out" / "overlays" / "one.png").is_file()

    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    status, _, err = run("predict", tmp_path / "b", str(tmp_path / "in" / "**" / "*.png"), "--out", tmp_path / "out2")
    assert status == 1
    assert "failed: " in err
    assert "bad.png" in err
    assert len(list((tmp_path / "out2" / "scenes").rglob("*.json"))) == 2

    status, _, err = run("predict", tmp_path / "b", tmp_path / "in" / "bad.png", "--out", tmp_path / "out3")
    assert status == 2
    assert "bad.png" in err


def coco(folder: Path, count: int, bundle: ts.Bundle) -> None:
    """Pictures whose labels are what the bundle finds in them."""
    paths = [picture(folder / "images" / f"{i}.png", seed=i) for i in range(count)]
    scenes = list(bundle.predict(paths))
    write(bundle, find_pictures([folder / "images"]), folder / "out")
    listing = json.loads((folder / "out" / "pictures.coco.json").read_text())
    annotations = []
    for image, scene in zip(listing["images"], scenes, strict=True):
        image["file_name"] = Path(image["file_name"]).name
        for row in scene.to_coco(image["id"])[:3]:
            x, y, w, h = row["bbox"]
            assert w * h > 0
            assert x >= 0 <= y
            annotations.append({**row, "id": len(annotations), "area": w * h, "iscrowd": 0})
    (folder / "instances.json").write_text(json.dumps({**listing, "annotations": annotations}))


def test_evaluate_scores_a_set_or_a_split(run: Run, tmp_path: Path) -> None:
    # More labels than three would be found anyway: the others are false alarms below the best three.
    bundle = small_bundle(thresholds={"operating": 0.05})
    bundle.save(tmp_path / "b")
    for name in ("train", "val"):
        coco(tmp_path / "data" / name, 2, bundle)
    status, out, _ = run("evaluate", tmp_path / "b", tmp_path / "data", "--json", "--out", tmp_path / "figures")
    metrics = json.loads(out)
    assert status == 0
    assert metrics["bbox"]["AP50@all"] > 0.3
    assert metrics["segm"]["AP50@all"] is not None
    assert json.loads((tmp_path / "figures" / "metrics.json").read_text()) == metrics
    assert json.loads((tmp_path / "figures" / "results.coco.json").read_text())
    status, out, _ = run("evaluate", tmp_path / "b", tmp_path / "data" / "train")
    assert status == 0
    assert "AP50" in out
    status, _, err = run("evaluate", tmp_path / "b", tmp_path / "data", "--split", "test")
    assert (status, err) == (2, "error: --split test: use train or val\n")


def test_models_are_listed_with_their_published_counts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, _ = run("models", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert status == 0
    for name, theirs in {
        "resnet18": "resnet18",
        "resnet152": "resnet152",
        "faster_rcnn_resnet50_fpn": "fasterrcnn_resnet50_fpn",
        "mask_rcnn_resnet50_fpn": "maskrcnn_resnet50_fpn",
    }.items():
        published = torchvision.models.get_model_weights(theirs).DEFAULT
        first = next(iter(type(published)))
        assert rows[name]["parameters"] == first.meta["num_params"]
    assert rows["resnet18"].keys() == {"name", "parameters", "paper", "weights"}
    assert rows["resnet18"]["weights"] == ["torchvision", "timm", "moco", "moco_v3"]
    few = {name: CATALOGUE[name] for name in ("resnet18", "mask_rcnn_resnet50_fpn")}
    monkeypatch.setattr("tracesight.models.build.CATALOGUE", few)
    lines = run("models")[1].splitlines()
    assert all(any(line.startswith(name) for line in lines) for name in few)


def test_weights_become_a_bundle(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    asked = ["weights", "import", tmp_path / "w.pth", "--source", "torchvision", "--model", "faster_rcnn_resnet50_fpn"]
    status, out, _ = run(*asked, "--out", tmp_path / "b", "--json")
    receipt = json.loads(out)
    bundle = ts.load(tmp_path / "b")
    assert status == 0
    assert (receipt["new"], receipt["conventions"], receipt["bundle"]) == ([], "torchvision", bundle.digest)
    assert (len(bundle.categories), bundle.categories[1], bundle.categories[12]) == (90, "person", "N/A")
    assert bundle.lineage["weights"]["sha256"] == receipt["sha256"]
    assert (bundle.preprocessing["image_size"], bundle.preprocessing["max_size"]) == (800, 1333)

    status, _, err = run(*asked, "--out", tmp_path / "c", "--num-classes", "5")
    assert (status, err.count("\n")) == (2, 1)
    assert "has shape (91, 1024)" in err
    assert not (tmp_path / "c").exists()

    status, _, _ = run(*asked, "--out", tmp_path / "d", "--conventions", "torchvision-coco-v1")
    assert (status, ts.load(tmp_path / "d").spec["conventions"]) == (0, "torchvision-coco-v1")
    known = Published("fasterrcnn_resnet50_fpn COCO v1", "torchvision-coco-v1", "COCO", 91, "BSD-3-Clause")
    monkeypatch.setitem(source.PUBLISHED, receipt["sha256"][:8], known)
    status, _, _ = run(*asked, "--out", tmp_path / "e")
    assert (status, ts.load(tmp_path / "e").spec["conventions"]) == (0, "torchvision-coco-v1")


def test_categories_come_from_text_or_json(run: Run, tmp_path: Path) -> None:
    model = torchvision.models.resnet18(num_classes=2)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    asked = ["weights", "import", tmp_path / "w.pth", "--source", "torchvision", "--model", "resnet18"]
    (tmp_path / "names.txt").write_text("cat\n\ndog\n", encoding="utf-8")
    (tmp_path / "names.json").write_text('{"4": "cat", "9": "dog"}')
    (tmp_path / "coco.json").write_text('{"categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}]}')
    for name, categories in {"names.txt": {1: "cat", 2: "dog"}, "names.json": {4: "cat", 9: "dog"}}.items():
        assert run(*asked, "--out", tmp_path / name[6:], "--categories", tmp_path / name)[0] == 0
        assert ts.load(tmp_path / name[6:]).categories == categories
    assert run(*asked, "--out", tmp_path / "coco", "--categories", tmp_path / "coco.json")[0] == 0
    assert ts.load(tmp_path / "coco").categories == {4: "cat", 9: "dog"}
    (tmp_path / "bad.json").write_text("[1, 2]")
    status, _, err = run(*asked, "--out", tmp_path / "bad", "--categories", tmp_path / "bad.json")
    assert status == 2
    assert "bad.json" in err


def test_data_and_keys_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert split_arguments(["data", "lr=0.1", "model=x"]) == ("data", ["lr=0.1", "model=x"])
    assert split_arguments(["train=a", "seed=1", "val=b"]) == ({"train": "a", "val": "b"}, ["seed=1"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set=3").mkdir()
    assert split_arguments(["set=3"]) == ("set=3", [])
    for wrong in (["a", "b"], ["a", "train=b"], ["lr=1"]):
        with pytest.raises(UserError):
            split_arguments(wrong)


def test_train_then_predict(run: Run, tmp_path: Path) -> None:
    for name in ("train", "val"):
        coco(tmp_path / "data" / name, 2, small_bundle(thresholds={"operating": 0.05}))
    keys = ["model=mask_rcnn_resnet18_fpn", "model_args={fpn_channels: 16, box_channels: 32, mask_channels: 16}"]
    keys += ["max_steps=1", "batch_size=2", "image_size=64", "workers=0", "samples=1", "precision=fp32"]
    asked = ["train", "--task", "segment", "--out", tmp_path / "run", tmp_path / "data", *keys]
    status, out, _ = run(*asked, "--json")
    assert status == 0
    assert json.loads(out) == json.loads((tmp_path / "run" / "metrics.json").read_text())
    status, _, err = run(*asked)
    assert status == 2
    assert "--resume" in err
    assert run(*asked, "--resume")[0] == 0
    photo = picture(tmp_path / "a.png")
    assert run("predict", tmp_path / "run" / "best", photo, "--out", tmp_path / "found")[0] == 0
    status, _, err = run(*asked, "imagesize=3")
    assert status == 2
    assert "image_size" in err
