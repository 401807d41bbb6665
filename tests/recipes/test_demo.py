from __future__ import annotations

import json

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tracesight.errors import UserError
from tracesight.recipes import demo
from tracesight.scene import Scene


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match=r"not empty.*--out"):
        demo.run_demo(tmp_path, progress=print)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]


def test_scenes_rescored_by_pycocotools_give_the_printed_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "TRAIN", 8)
    monkeypatch.setattr(demo, "VAL", 4)
    out, said = tmp_path / "demo", []
    metrics = demo.run_demo(
        out, said.append, overrides=("max_steps=40", "batch_size=3", "image_size=96", "validate_every=0", "workers=0")
    )
    truth = COCO(str(out / "data" / "val" / "instances.json"))
    stems = {picture["file_name"].rsplit(".", 1)[0]: picture["id"] for picture in truth.dataset["images"]}
    rows = [
        row for stem, number in stems.items() for row in Scene.load(out / "scenes" / f"{stem}.json").to_coco(number)
    ]
    assert rows and min(row["score"] for row in rows) < 0.5  # low scores are kept
    scored = COCOeval(truth, truth.loadRes(rows), "segm")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    assert scored.stats[1] == pytest.approx(metrics["segm"]["AP50"], abs=1e-6)
    assert any(f"mask AP50 {metrics['segm']['AP50']:.3f}" in line for line in said)
    assert json.loads((out / "metrics.json").read_text())["segm"] == metrics["segm"]
    assert len(list((out / "overlays").glob("*.png"))) == 4 and (out / "report.html").stat().st_size > 10_000
    assert any(str(out / "report.html") in line for line in said) and any("tracesight train" in line for line in said)
