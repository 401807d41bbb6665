"""The page of a data check: a close look at each finding, and nothing from outside that is not escaped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tracesight.data.checks.everything import Report
from tracesight.data.dataset import Dataset
from tracesight.data.finding import Finding, Kind
from tracesight.data.record import Annotation, Record
from tracesight.report.checks import SIDE, thumbnail, write_check_page

KIND = Kind("box-bad", "error", "boxes that are bad", "draw it anew with `tool`", "removed")
NOTE = Kind("set-odd", "note", "sets that are odd", "look")


@pytest.fixture
def record(tmp_path: Path) -> Record:
    Image.fromarray(np.full((100, 120, 3), 128, np.uint8)).save(tmp_path / "a.png")
    square = [[60.0, 50.0, 80.0, 50.0, 80.0, 70.0, 60.0, 70.0]]
    return Record(1, tmp_path / "a.png", 120, 100, (
        Annotation(1, 1, (60, 50, 80, 70), square), Annotation(2, 1, (70, 60, 90, 80)),
    ))  # fmt: skip


def finding(record: Record, **more: object) -> Finding:
    return Finding(KIND, "labels.json: annotation 1 on a.png", "it is <bad> & ugly", record.path, **more)  # type: ignore[arg-type]


def test_a_close_look(record: Record) -> None:
    shot = thumbnail(finding(record, annotation=1, box=(60.0, 50.0, 80.0, 70.0)), {record.path: record})
    assert shot is not None
    assert shot.image.size == (SIDE, SIDE)
    assert shot.caption == "a.png: it is <bad> & ugly"
    pixels = np.asarray(shot.image).astype(int)
    scale = SIDE / 40  # the window is no smaller than 40 pixels
    left, top = round((60 - 50) * scale), round((50 - 40) * scale)  # it begins at (50, 40)
    assert tuple(pixels[SIDE // 2, left]) == (255, 59, 48)
    assert tuple(pixels[top, SIDE // 2]) == (255, 59, 48)
    inside = pixels[top + 20, left + 20]
    assert inside[2] > inside[0] + 50  # the mask lies over it, in blue
    assert tuple(pixels[10, 10]) == (128, 128, 128)
    assert tuple(pixels[round(20 * scale) + 3, round(20 * scale)]) == (64, 224, 255)  # the other box


def test_boxes_far_outside_and_whole_pictures(record: Record) -> None:
    for box in ((1e9, 5.0, 2e9, 9.0), (-50.0, -50.0, 500.0, 500.0), (80.0, 70.0, 60.0, 50.0), (5.0, 5.0, 5.0, 5.0)):
        shot = thumbnail(finding(record, annotation=9, box=box), {})
        assert shot is not None
        assert shot.image.size == (SIDE, SIDE)
    whole = thumbnail(finding(record), {record.path: record})
    assert whole is not None
    assert whole.image.size == (SIDE, SIDE * 100 // 120)
    both = thumbnail(finding(record, other=record.path), {})
    assert both is not None
    assert both.image.width > 2 * SIDE * 0.5
    record.path.write_bytes(b"no picture")
    assert thumbnail(finding(record), {}) is None


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_pictures_of_other_channels_and_depths_are_shown(channels: int, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pixels = np.full((40, 60, channels), 700, np.uint16)
    pixels[:, 30:, 0] = 900
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    record = Record(1, tmp_path / "a.tif", 60, 40, (Annotation(1, 1, (5, 5, 20, 20)),))
    shot = thumbnail(finding(record, annotation=1), {record.path: record})
    assert shot is not None
    shown = np.asarray(shot.image)
    assert shown[10, 10, 0] < 40 and shown[10, -10, 0] > 215


def test_the_page(record: Record, tmp_path: Path) -> None:
    findings = (finding(record, annotation=1, box=(60.0, 50.0, 80.0, 70.0)), Finding(NOTE, "x.json: train", "12 < 13"))
    sets = {"train": Dataset.of([record], {1: "cell"}, "x.json")}
    facts = {
        "data": "some/<data>", "sets": {"train": {"pictures": 1, "objects": 2, "categories": 1}},
        "errors": 1, "warnings": 0, "notes": 1, "kinds": [1, 2],
        "fixed": {"folder": "dst", "format": "coco", "changes": {"box-bad": 1}, "left": {"set-odd": 1}, "lost": []},
    }  # fmt: skip
    write_check_page(tmp_path / "page.html", facts, sets, Report(sets, findings))
    page = (tmp_path / "page.html").read_text()
    assert "<bad>" not in page
    assert "&lt;data&gt;" in page
    assert page.count("<img") == 1
    assert '<section id="box-bad"><h2>Boxes that are bad</h2>' in page
    assert "What to do: draw it anew with <code>tool</code>. <code>--fix</code>: removed." in page
    assert "12 &lt; 13" in page
    assert "A corrected copy is in dst (coco): 1 changes" in page
    clean = {**facts, "errors": 0, "notes": 0, "kinds": []}
    write_check_page(tmp_path / "clean.html", clean, sets, Report(sets, ()))
    assert "Nothing was found to be wrong." in (tmp_path / "clean.html").read_text()
