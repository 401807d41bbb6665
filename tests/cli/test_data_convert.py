"""`tracesight data convert`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Run
from PIL import Image

XML = """<annotation><size><width>30</width><height>20</height></size><object><name>cell</name>{mark}<bndbox>
<xmin>3</xmin><ymin>4</ymin><xmax>10</xmax><ymax>{bottom}</ymax></bndbox></object></annotation>"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures of a train and a val set, labelled as Pascal VOC has it."""
    folder = tmp_path / "data"
    for place in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / place).mkdir(parents=True)
    for name in ("a", "b 2", "ü"):
        Image.new("RGB", (30, 20)).save(folder / "JPEGImages" / f"{name}.jpg")
        text = XML.format(mark="<truncated>1</truncated>" if name == "a" else "", bottom=12)
        (folder / "Annotations" / f"{name}.xml").write_text(text)
    (folder / "ImageSets/Main/train.txt").write_text("a\nb 2\n")
    (folder / "ImageSets/Main/val.txt").write_text("ü\n", encoding="utf-8")
    return folder


def test_all_sets_are_written_and_what_is_lost_is_said(data: Path, tmp_path: Path, run: Run) -> None:
    status, out, err = run("data", "convert", data, tmp_path / "out", "--format", "yolo")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "train: 2 pictures, 2 objects",
        "val: 1 pictures, 1 objects",
        "lost: yolo has no place for the mark of truncated objects: 1 left out",
        f"written: {tmp_path / 'out'} (yolo)",
    ]
    assert (tmp_path / "out/labels/val/ü.txt").read_text() == "0 0.2 0.375 0.26666667 0.45\n"
    status, out, _ = run("data", "convert", tmp_path / "out", tmp_path / "back", "--format", "voc", "--json")
    assert status == 0
    assert json.loads(out) == {
        "format": "voc", "folder": str(tmp_path / "back"), "lost": [], "notes": [],
        "sets": {"train": {"pictures": 2, "objects": 2}, "val": {"pictures": 1, "objects": 1}},
    }  # fmt: skip
    assert (tmp_path / "back/ImageSets/Main/train.txt").read_text() == "a\nb 2\n"
    assert "<xmin>3</xmin>" in (tmp_path / "back/Annotations/a.xml").read_text()


def test_mistakes_are_one_line_and_nothing_is_written(data: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    for arguments, words in [
        ([data, tmp_path / "full", "--format", "coco"], "full: the folder is not empty"),
        ([data, data / "out", "--format", "coco"], f"out: lies inside {data}"),
        ([data, tmp_path / "out", "--format", "kitti"], "format 'kitti' is not known; use one of coco, voc"),
        ([data, tmp_path / "out", "--format", "coco", "--from", "kitti"], "format 'kitti' is not known"),
        ([data, tmp_path / "out", "--format", "coco", "--from", "yolo"], "nothing names the classes"),
        ([data, tmp_path / "out", "--format", "imagefolder"], "no picture has a category as a whole"),
        ([data, "/proc/nowhere/out", "--format", "coco"], "/proc/nowhere/out: cannot be written"),
        ([tmp_path / "gone", tmp_path / "out", "--format", "coco"], "gone: no such file or folder"),
        ([data, tmp_path / "out"], "Missing option '--format'"),
    ]:
        status, out, err = run("data", "convert", *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1), (arguments, err)
        assert words in err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "full"]


def test_errors_in_the_labels_refuse_unless_they_are_allowed(data: Path, tmp_path: Path, run: Run) -> None:
    (data / "Annotations/a.xml").write_text(XML.format(mark="", bottom=40))
    status, _, err = run("data", "convert", data, tmp_path / "out", "--format", "coco")
    assert status == 2
    assert "a.xml: annotation 1 on a.jpg: the box (2, 3, 10, 40) reaches 20 px outside" in err
    status, _, err = run("data", "convert", data, tmp_path / "out", "--format", "coco", "--allow", "box-outside")
    assert status == 0
    assert "note: " in err and "1 boxes that reach outside their picture, clipped (box-outside)" in err
    boxes = json.loads((tmp_path / "out/train/instances.json").read_text())["annotations"]
    assert [row["bbox"] for row in boxes] == [[2, 3, 8, 17], [2, 3, 8, 9]]
