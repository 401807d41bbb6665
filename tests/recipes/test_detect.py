from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

import tracesight as ts
from tracesight.cli import _status as main_status
from tracesight.data.trays import make_trays
from tracesight.errors import PartialFailure, UserError
from tracesight.recipes import detect
from tracesight.training.history import read_history
from tracesight.training.replay import replay
from tracesight.training.steps import update


def run(config, data, out, **options):
    said: list[str] = []
    metrics = detect.train(config, data, out, progress=said.append, **options)
    return metrics, said


def die_at(monkeypatch, step: int) -> None:
    """The process ends in the middle of step `step`, as by kill -9."""
    whole = detect.LossWatch.close

    def watched(self, norm):
        if self._run.step == step:
            raise KeyboardInterrupt
        whole(self, norm)

    monkeypatch.setattr(detect.LossWatch, "close", watched)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return ts.load(folder).model.state_dict()


def course(out: Path) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in read_history(out / "history.csv")]


@pytest.fixture(scope="module")
def whole(trays, tiny, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    run(tiny, trays, out)
    return out


def test_a_run_leaves_what_it_promises(whole, tiny):
    there = {entry.name for entry in whole.iterdir()}
    assert there == {"best", "last", "checkpoints", "metrics.json", "history.csv", "curves.png", "samples",
                     "report.html", "config.yaml"}  # fmt: skip
    metrics = json.loads((whole / "metrics.json").read_text())
    assert {"AP", "AP50", "AP@all", "AP50@all"} <= metrics["segm"].keys() and "bbox" in metrics
    rows = read_history(whole / "history.csv")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "val_loss" in row] == [3, 6]
    last = ts.load(whole / "last")
    assert last.lineage["data"]["train"]["pictures"] == 8 and last.lineage["seed"] == 0
    assert last.threshold == metrics["operating"]["threshold"]
    assert last.spec["args"]["norm"] == "group"
    assert len(list((whole / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_equals_not_killed(whole, trays, tiny, tmp_path, monkeypatch, workers):
    out = tmp_path / "killed"
    with monkeypatch.context() as patch:
        die_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, trays, out)
    assert not (out / "metrics.json").exists()
    _, said = run(tiny.model_copy(update={"workers": workers}), trays, out, resume=True)
    assert "resuming at step 4 of 6" in said
    for folder in ("last", "best"):
        old, new = weights(whole / folder), weights(out / folder)
        assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
    assert course(whole) == course(out)
    assert (
        json.loads((whole / "metrics.json").read_text())["segm"]
        == json.loads((out / "metrics.json").read_text())["segm"]
    )


def test_resume_of_a_finished_run_changes_nothing(whole, trays, tiny, tmp_path):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    metrics, said = run(tiny, trays, whole, resume=True)
    assert metrics == json.loads((whole / "metrics.json").read_text()) and "nothing to do" in said[0]
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}


def test_resume_refuses_another_configuration_data_or_folder(whole, trays, tiny, tmp_path):
    with pytest.raises(UserError, match=r"another lr \(0\.001 → 0.5\)"):
        run(tiny.model_copy(update={"lr": 0.5}), trays, whole, resume=True)
    with pytest.raises(UserError, match="not empty"):
        run(tiny, trays, whole)
    stopped = tmp_path / "stopped"
    shutil.copytree(whole, stopped)
    (stopped / "metrics.json").unlink()
    make_trays(tmp_path / "other" / "train", pictures=8, seed=5, side=96)
    make_trays(tmp_path / "other" / "val", pictures=3, seed=2, side=96)
    with pytest.raises(UserError, match="other data: pictures or labels of train"):
        run(tiny, tmp_path / "other", stopped, resume=True)


def test_resume_without_a_checkpoint_begins_afresh_and_says_so(trays, tiny, tmp_path):
    config = tiny.model_copy(update={"max_steps": 1, "ema": 0.0})
    _, said = run(config, trays, tmp_path / "new", resume=True)
    assert any("starting afresh" in line for line in said)
    assert (tmp_path / "new" / "metrics.json").exists()


def test_a_loss_that_is_not_finite_stops_the_run(trays, tiny, tmp_path, monkeypatch):
    real = detect.build_detector

    def poisoned(*args, **options):
        model = real(*args, **options)
        with torch.no_grad():
            model.roi_heads.box_predictor.cls_score.bias.fill_(math.nan)
        return model

    monkeypatch.setattr(detect, "build_detector", poisoned)
    with pytest.raises(PartialFailure) as caught:
        run(tiny, trays, tmp_path / "run")
    message = str(caught.value)
    assert message.startswith("step 0: loss_classifier is nan: weight roi_heads.box_predictor.cls_score.bias holds ")
    assert message.count(".png") == 2
    saved = tmp_path / "run" / "bad-batch-00000000.pt"
    assert f"tracesight train --replay {saved}" in message
    assert not (tmp_path / "run" / "checkpoints").exists()
    again = replay(saved, device="cpu", say=lambda line: None)
    assert again.reproduced and math.isnan(again.now["loss_classifier"]) and len(again.pictures) == 2
    assert [main_status(["train", "--replay", str(saved)]), main_status(["train", "--replay", str(tmp_path)])] == [0, 2]


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(trays, tiny, tmp_path, monkeypatch):
    """A loss may be finite and its gradient not: the update is left out, and nothing of it is saved."""
    real, held = detect.build_detector, {}

    def steep(*args, **options):
        model = held["model"] = real(*args, **options)
        model.roi_heads.box_predictor.cls_score.bias.register_hook(
            lambda gradient: gradient * (math.inf if held.setdefault("step", 0) == 2 else 1)
        )
        return model

    def counted(run, *args, **options):
        held["step"], held["before"] = run.step, run.model.roi_heads.box_predictor.cls_score.bias.detach().clone()
        return update(run, *args, **options)

    monkeypatch.setattr(detect, "build_detector", steep)
    monkeypatch.setattr(detect, "update", counted)
    with pytest.raises(PartialFailure, match=r"step 2: the gradient's norm is (nan|inf)"):
        run(tiny.model_copy(update={"ema": 0.0}), trays, tmp_path / "run")
    assert torch.equal(held["model"].roi_heads.box_predictor.cls_score.bias, held["before"])
    assert [path.name[:13] for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]


def test_frozen_norms_need_a_bundle(trays, tiny, tmp_path, whole):
    frozen = tiny.model_copy(update={"model_args": {**tiny.model_args, "norm": "frozen"}})
    with pytest.raises(UserError, match=r"model_args\.norm=frozen needs --init"):
        run(frozen, trays, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_init_takes_the_weights_of_a_bundle(trays, tiny, whole):
    begun = ts.load(whole / "last")
    args = detect.detector_args(tiny.model, {}, begun)
    assert args["norm"] == "group" and args["fpn_channels"] == 32
    options = {"max_objects": 30, "seed": 3, "begun": begun}
    same = detect.build_detector(tiny.model, args, categories=begun.categories, **options).state_dict()
    old = begun.model.state_dict()
    assert all(torch.equal(same[name], old[name]) for name in old)
    others = detect.build_detector(tiny.model, args, categories={1: "a", 2: "b"}, **options).state_dict()
    assert torch.equal(others["backbone.body.conv1.weight"], old["backbone.body.conv1.weight"])
    assert others["roi_heads.box_predictor.cls_score.weight"].shape[0] == 3
    with pytest.raises(UserError, match="--init: "):
        detect.build_detector(tiny.model, {**args, "fpn_channels": 48}, categories=begun.categories, **options)


def test_one_picture_alone_trains_with_a_warning(tiny, tmp_path):
    make_trays(tmp_path / "one", pictures=1, seed=1, side=96)
    config = tiny.model_copy(update={"max_steps": 2})
    metrics, said = run(config, tmp_path / "one" / "instances.json", tmp_path / "run")
    assert any("one picture only" in line for line in said)
    assert "segm" not in metrics and ts.load(tmp_path / "run" / "best").threshold == 0.5


def test_a_class_absent_from_val_trains_with_a_warning(trays, tiny, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(trays, data)
    labels = json.loads((data / "val" / "instances.json").read_text())
    labels["annotations"] = [row for row in labels["annotations"] if row["category_id"] != 2]
    (data / "val" / "instances.json").write_text(json.dumps(labels))
    metrics, said = run(tiny.model_copy(update={"max_steps": 1}), data, tmp_path / "run")
    name = next(row["name"] for row in labels["categories"] if row["id"] == 2)
    assert any(name in line for line in said if line.startswith("note: "))
    assert metrics["segm"]["per_class"][name]["AP"] is None


def test_boxes_alone_train_a_faster_rcnn(trays, tiny, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(trays, data)
    for split in ("train", "val"):
        labels = json.loads((data / split / "instances.json").read_text())
        for row in labels["annotations"]:
            del row["segmentation"]
        (data / split / "instances.json").write_text(json.dumps(labels))
    config = tiny.model_copy(update={"max_steps": 1})
    with pytest.raises(UserError, match="--task detect"):
        run(config, data, tmp_path / "segment")
    metrics, _ = run(detect.for_task(config, "detect"), data, tmp_path / "detect")
    assert "bbox" in metrics and "segm" not in metrics


@pytest.mark.long  # as most of the family; test_family.py has C4
def test_overfits_eight_pictures(shapes, tiny, tmp_path):
    config = tiny.model_copy(
        update={"max_steps": 160, "batch_size": 4, "model_args": {**tiny.model_args, "fpn_channels": 64},
                "ema": 0.0, "colour": 0.0, "transpose": False, "flip": False,
                "lr": 1e-3, "warmup_steps": 10, "validate_every": 0, "checkpoint_every": 0, "val_loss_pictures": 0}
    )  # fmt: skip
    metrics, _ = run(config, {"train": shapes, "val": shapes}, tmp_path / "run")
    assert metrics["bbox"]["AP50"] >= 0.9 and metrics["segm"]["AP50"] >= 0.9
