"""`train`, `evaluate` and `predict` on pictures labelled in every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from commands import Run
from made_formats import MAKERS, WITH_OBJECTS
from small_networks import small_bundle

SMALL = {
    "model": "mask_rcnn_resnet18_fpn",
    "model_args": {
        "fpn_channels": 16, "box_channels": 32, "mask_channels": 16, "anchor_sizes": [[8], [16], [32], [64], [96]],
        "rpn": {"pre_nms_train": 50, "post_nms_train": 30, "pre_nms_test": 50, "post_nms_test": 20},
        "roi": {"batch": 16},
    },
    "max_objects": 10, "max_steps": 2, "batch_size": 2, "image_size": 32, "samples": 0, "device": "cpu", "workers": 0,
    "threads": 1,
}  # fmt: skip


def test_evaluate_and_predict_give_the_same_in_every_format(tmp_path: Path, run: Run) -> None:
    small_bundle(thresholds={"operating": 0.0}).save(tmp_path / "b")
    scores = {}
    for format in WITH_OBJECTS:
        MAKERS[format](tmp_path / format)
        status, out, err = run("evaluate", tmp_path / "b", tmp_path / format, "--json", "--device", "cpu")
        assert status == 0, err
        metrics = json.loads(out)
        scores[format] = [(metrics[kind]["AP@all"], metrics[kind]["AP50@all"]) for kind in ("bbox", "segm")]
    assert set(map(str, scores.values())) == {str(scores["coco"])}
    for format in ("masks", "voc"):
        status, out, err = run(
            "predict", tmp_path / "b", tmp_path / format, "--out", tmp_path / f"{format} found", "--json"
        )
        assert (status, json.loads(out)["pictures"]) == (0, 5), err


@pytest.mark.parametrize("format", ["voc", "masks"])
def test_train(tmp_path: Path, run: Run, format: str) -> None:
    for split in ("train", "val"):
        MAKERS[format](tmp_path / "data" / split)
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(SMALL))
    status, out, err = run(
        "train", tmp_path / "data", "--task", "segment", "--config", tmp_path / "keys.yaml", "--out", tmp_path / "run",
        "--json",
    )  # fmt: skip
    assert status == 0, err
    assert set(json.loads(out)) >= {"bbox", "segm"}
    assert json.loads((tmp_path / "run/best/bundle.json").read_text())["categories"] is not None
