"""Keypoints from labels to scenes: a training as small as can be, its bundle, its figures, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, run, small
from stick_figures import POINTS, make_figures

import tracesight as ts
from tracesight.data.formats import read_dataset
from tracesight.errors import UserError
from tracesight.evaluation import evaluate, table
from tracesight.predict import dataset_results
from tracesight.scene import Scene
from tracesight.training.history import read_history
from tracesight.training.validate import kinds_of

POINT_ARGS = {"model": "keypoint_rcnn_resnet18_fpn", "model_args": {**SMALL["model_args"], "keypoint_channels": 16}}


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    make_figures(folder / "train", pictures=8, seed=1, side=96)
    make_figures(folder / "val", pictures=3, seed=2, side=96)
    return folder


@pytest.fixture(scope="module")
def learned(quick, figures, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("learned") / "run"
    run(small(**POINT_ARGS), figures, out)
    return out


def test_keypoints_are_learned_measured_and_told(learned: Path, figures: Path, tmp_path: Path):
    metrics = json.loads((learned / "metrics.json").read_text())
    assert {"AP", "AP50", "APm", "APl", "AR", "AP@all"} <= metrics["keypoints"].keys()
    assert metrics["keypoints"]["per_class"]["figure"]["objects"] == metrics["bbox"]["per_class"]["figure"]["objects"]
    rows = read_history(learned / "history.csv")
    losses = [row["loss_keypoint"] for row in rows if "loss_keypoint" in row]
    assert len(losses) == 6 and losses[0] == pytest.approx(8.05, abs=0.3)  # log 56²
    assert all("val_keypoints_AP@all" in row for row in rows if "val_loss" in row)
    bundle = ts.load(learned / "last")
    assert bundle.keypoints == {1: POINTS}
    assert kinds_of(bundle.model) == ("bbox", "keypoints")
    val = read_dataset(figures / "val")
    scene = bundle.predict(val[0].path, threshold=0)
    assert scene.objects
    for item in scene.objects:
        x1, y1, x2, y2 = item.box
        assert [point.name for point in item.keypoints] == list(POINTS.names)
        assert item.skeleton[0] == ("head", "neck") and len(item.skeleton) == 6
        assert all(x1 <= p.x <= max(x2, x1 + 1) and y1 <= p.y <= max(y2, y1 + 1) for p in item.keypoints)
    scene.save(tmp_path / "scene.json")
    assert Scene.load(tmp_path / "scene.json") == scene
    again = evaluate(dataset_results(bundle, val), val, max_objects=bundle.max_objects, kinds=kinds_of(bundle.model))
    assert again["keypoints"]["AP@all"] == metrics["keypoints"]["AP@all"]
    assert "Keypoints" in table(again)


def test_a_training_begins_from_a_bundle_with_other_points_or_none(learned: Path, figures: Path, tmp_path: Path):
    from tracesight.training.initial import build_detector

    begun = ts.load(learned / "last")
    name, args = begun.spec["name"], {**begun.spec["args"], "num_keypoints": 7}
    args.pop("roi")
    whole = {"categories": {1: "figure"}, "max_objects": 10, "seed": 1, "begun": begun}
    same = build_detector(name, args, points={1: POINTS}, **whole).state_dict()
    theirs = begun.model.state_dict()
    assert all(torch.equal(same[key], tensor) for key, tensor in theirs.items())
    others = replace(POINTS, names=tuple("abcdefg"))
    new = build_detector(name, args, points={1: others}, **whole).state_dict()
    changed = {key for key in theirs if not torch.equal(new[key], theirs[key])}
    assert changed == {f"roi_heads.keypoint_predictor.kps_score_lowres.{part}" for part in ("weight", "bias")}
    boxes = {key: value for key, value in args.items() if "keypoint" not in key}
    plain = build_detector("faster_rcnn_resnet18_fpn", boxes, **whole)
    assert not any("keypoint" in key for key in plain.state_dict())
    bundle = ts.Bundle.of(plain, {1: "figure"}, keypoints={1: POINTS})
    assert bundle.keypoints == {}
    again = build_detector(name, args, points={1: POINTS}, **{**whole, "begun": bundle}).state_dict()
    assert torch.equal(again["backbone.body.conv1.weight"], theirs["backbone.body.conv1.weight"])


def test_labels_without_keypoints_are_refused(trays: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no object has a labelled keypoint; train a model without them"):
        run(small(**POINT_ARGS), trays, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_points_of_one_name_or_too_many_are_refused(learned: Path):
    bundle = ts.load(learned / "last")
    for names in ("aab", "abcdefgh"):
        with pytest.raises(UserError, match="category 1: need at most 7 keypoints, each of a name of its own"):
            ts.Bundle.of(bundle.model, {1: "figure"}, keypoints={1: replace(POINTS, names=tuple(names))})


@pytest.mark.long
def test_eight_pictures_are_learnt_by_heart(figures: Path, tmp_path: Path):
    args = {"norm": "group", "fpn_channels": 64, "box_channels": 128, "keypoint_channels": 64,
            "anchor_sizes": [[12], [24], [48], [96], [144]], "roi": {"batch": 32}}  # fmt: skip
    config = small(
        model="keypoint_rcnn_resnet18_fpn", model_args=args, max_steps=300, batch_size=4, lr=1e-3, optimiser="adamw",
        warmup_steps=20, clip_norm=5.0, flip=False, validate_every=0, checkpoint_every=0, val_loss_pictures=0,
    )  # fmt: skip
    metrics, _ = run(config, {"train": figures / "train", "val": figures / "train"}, tmp_path / "run")
    assert metrics["bbox"]["AP50"] >= 0.9
    assert metrics["keypoints"]["AP"] >= 0.8
