"""labelme: shapes, groups and flags, and what is wrong with some files."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_dataset, read_sets, write_sets
from tracesight.data.record import Annotation, Record
from tracesight.errors import UserError
from tracesight.scene.mask import Mask

W, H = 40, 30
SQUARE = [[2, 3], [12, 3], [12, 9], [2, 9]]


def shape(points: Any = SQUARE, kind: Any = "polygon", label: Any = "cell", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def write(folder: Path, *shapes: Any, name: str = "a", **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (W, H)).save(folder / f"{name}.png")
    data = {"version": "5.2.1", "flags": {}, "shapes": list(shapes), "imagePath": f"{name}.png", "imageData": None,
            "imageHeight": H, "imageWidth": W, **more}  # fmt: skip
    file = folder / f"{name}.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    return file


def png(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def found(folder: Path) -> list[tuple[str, str, str]]:
    return [(finding.kind.severity, finding.kind.code, str(finding)) for finding in read_sets(folder)[1]]


def test_kinds_of_shapes(tmp_path: Path) -> None:
    pixels = np.zeros((4, 5), bool)
    pixels[1:, 2:] = True
    write(
        tmp_path, shape(), shape([[20, 25], [8, 4.5]], "rectangle", "dust"), shape([[20, 15], [20, 10]], "circle"),
        shape([[6, 7], [10, 10]], "mask", mask=png(pixels)), shape([[1, 1], [5, 5]], "line"),
        shape([[1, 1]], "point"), shape([[1, 1], [5, 5], [9, 1]], "linestrip"),
    )  # fmt: skip
    dataset = read_dataset(tmp_path)
    polygon, rectangle, circle, mask = dataset[0].annotations
    assert dataset.categories == {1: "cell", 2: "dust"}
    assert (polygon.box, polygon.segmentation) == ((2, 3, 12, 9), [[2, 3, 12, 3, 12, 9, 2, 9]])
    assert (rectangle.box, rectangle.segmentation, rectangle.category_id) == ((8, 4.5, 20, 25), None, 2)
    assert circle.box == pytest.approx((15, 10, 25, 20), abs=0.01)
    drawn = circle.mask(H, W)
    assert drawn is not None
    y, x = np.mgrid[:H, :W] + 0.5
    disc = Mask.from_array((x - 20) ** 2 + (y - 15) ** 2 <= 25)
    assert drawn.iou(disc) > 0.95
    assert abs(drawn.area - math.pi * 25) < 4
    expected = np.zeros((H, W), bool)
    expected[8:11, 8:11] = True
    assert mask.mask(H, W) == Mask.from_array(expected)
    assert mask.box == (8, 8, 11, 11)
    assert [(severity, code) for severity, code, _ in found(tmp_path)] == [("warning", "shape-without-area")] * 3
    assert dataset.notes == (
        f"{tmp_path.parent.name}/{tmp_path.name}: 3 shapes that have no area: points and lines, left out "
        "(shape-without-area)",
    )


def test_parts_of_one_group_are_one_object(tmp_path: Path) -> None:
    far = [[20, 20], [30, 20], [30, 28]]
    pixels = np.ones((3, 3), bool)
    write(
        tmp_path, shape(group_id=1), shape(far, group_id=1), shape(label="dust", group_id=1), shape(group_id=2),
        shape([[30, 2], [32, 4]], "mask", mask=png(pixels), group_id=2), shape(),
    )  # fmt: skip
    joined, dust, mixed, alone = read_dataset(tmp_path)[0].annotations
    assert [a.id for a in (joined, dust, mixed, alone)] == [1, 3, 4, 6]
    assert joined.box == (2, 3, 30, 28)
    assert joined.segmentation == [[v for point in SQUARE for v in point], [v for point in far for v in point]]
    assert (dust.category_id, dust.box) == (2, (2, 3, 12, 9))
    assert mixed.box == (2, 3, 33, 5) or mixed.box == (2, 2, 33, 9)
    both = mixed.mask(H, W)
    assert both is not None
    assert both.area == 60 + 9
    assert alone.segmentation == [[v for point in SQUARE for v in point]]


def test_flags(tmp_path: Path) -> None:
    write(tmp_path, shape(flags={"crowd": True}), shape(flags={"difficult": True, "truncated": True, "new": True}),
          flags={"night": True, "rain": False, "cell": True})  # fmt: skip
    dataset = read_dataset(tmp_path)
    crowd, hard = dataset[0].annotations
    assert (crowd.crowd, crowd.difficult, crowd.truncated) == (True, False, False)
    assert (hard.crowd, hard.difficult, hard.truncated) == (False, True, True)
    assert dataset.categories == {1: "cell", 2: "night"}
    assert set(dataset[0].labels) == {1, 2}
    assert write_sets({"all": dataset}, tmp_path / "out", "labelme") == []
    again = read_dataset(tmp_path / "out")
    assert [(a.crowd, a.difficult, a.truncated) for a in again[0].annotations] == [
        (True, False, False), (False, True, True),
    ]  # fmt: skip
    assert set(again[0].labels) == {1, 2}


def test_files_and_pictures_in_folders_of_their_own(tmp_path: Path) -> None:
    file = write(tmp_path / "images", shape(), imagePath="..\\images\\a.png")
    (tmp_path / "labels").mkdir()
    file.rename(tmp_path / "labels/a.json")
    dataset = read_dataset(tmp_path)
    assert [(record.name, record.label_file) for record in dataset] == [("images/a.png", tmp_path / "labels/a.json")]


def test_the_copy_inside_the_file_is_not_read(tmp_path: Path) -> None:
    file = write(tmp_path, shape(), imageData="AAAA", imageHeight=None, imageWidth=None)
    assert read_dataset(tmp_path)[0].height == H
    assert [code for _, code, _ in found(tmp_path)] == ["size-missing"]
    (tmp_path / "a.png").unlink()
    write(tmp_path, shape(), name="b")
    assert f"{file}: its picture a.png is not there; a copy of it is in the file, as imageData" in found(tmp_path)[0][2]
    assert len(read_dataset(tmp_path, allow=["annotation-without-picture"])) == 1


def test_pictures_without_a_file_and_with_two(tmp_path: Path) -> None:
    write(tmp_path, shape())
    write(tmp_path, shape(), name="b", imagePath="a.png")
    assert [(severity, code) for severity, code, _ in found(tmp_path)] == [
        ("error", "label-unreadable"), ("warning", "picture-unlabelled"),
    ]  # fmt: skip
    assert "another file labels a.png too" in found(tmp_path)[0][2]


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "C:\\x.png", "..\\..\\x.png"])
def test_pictures_outside_the_folder_are_not_looked_at(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "data", shape(), imagePath=name)
    (tmp_path / "data/a.png").rename(tmp_path / "x.png")
    assert [code for _, code, _ in found_all(tmp_path / "data")] == ["picture-outside-folder"]
    assert str(found_all(tmp_path / "data")[0][2]).startswith(f"{file}: its picture {name} lies outside the folder")


def found_all(folder: Path) -> list[tuple[str, str, str]]:
    write(folder, shape(), name="other")
    return found(folder)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("text", "it has no label"),
        (shape(label=""), "it has no label"),
        (shape(label=7), "it has no label"),
        (shape(points=None), "points must be pairs of numbers, not None"),
        (shape(points=[[1, 2], [3]]), "points must be pairs"),
        (shape(points=[[1, 2], [3, float("nan")], [4, 5]]), "points must be pairs"),
        (shape(points=[]), "it has no points"),
        (shape([[1, 2]], "rectangle"), "a rectangle must have two or four corners, not 1"),
        (shape(kind="circle"), "a circle must have a centre and a point on it, not 4 points"),
        (shape([[1, 2], [3, 4]], "mask"), "a mask must have two points and a picture"),
        (shape([[1, 2], [3, 4]], "mask", mask="???"), "its mask is not base64"),
        (shape([[1, 2], [3, 4]], "mask", mask="AAAA"), "its mask is no picture"),
        (shape([[90, 2], [93, 4]], "mask", mask=png(np.ones((3, 4), bool))), "its mask has no pixel in the picture"),
        (shape(kind="spline"), "'spline' is no kind of shape"),
    ],
)
def test_shapes_that_cannot_be_read_are_left_out_and_named(tmp_path: Path, wrong: Any, words: str) -> None:
    file = write(tmp_path, shape(), wrong)
    with pytest.raises(UserError) as caught:
        read_dataset(tmp_path)
    assert str(caught.value).startswith(f"{file}: shape 2: {words}")
    assert "\n" not in str(caught.value)
    assert len(read_dataset(tmp_path, allow=["label-unreadable"])[0].annotations) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "it has no list of shapes"),
        (b'{"shapes": 7}', "it has no list of shapes"),
        ('{"shapes": [], "x": "\xfc"}'.encode("latin-1"), "not UTF-8 text"),
    ],
)
def test_one_file_that_cannot_be_read_does_not_end_it(tmp_path: Path, content: bytes, words: str) -> None:
    write(tmp_path, shape(), name="good")
    file = write(tmp_path, name="bad")
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_dataset(tmp_path)
    assert str(caught.value).startswith(f"{file}: ")
    assert words in str(caught.value)
    file.write_text(json.dumps({"shapes": [], "imagePath": "bad.png"}), "utf-16")
    assert [record.name for record in read_dataset(tmp_path)] == ["bad.png", "good.png"]


def test_what_is_written(tmp_path: Path) -> None:
    record = read_dataset(write(tmp_path / "in", shape()).parent)[0]
    two = [[1.5, 1, 9, 1, 9, 9.25], [20.0, 20, 30, 20, 30, 28]]
    ring = np.zeros((H, W), bool)
    ring[3:20, 4:30], ring[8:12, 10:20] = True, False
    objects = (
        Annotation(1, 4, (1.5, 1, 30, 28), two), Annotation(2, 9, (4, 3, 30, 20), Mask.from_array(ring)),
        Annotation(3, 4, (0.25, 0, 9, 9)), Annotation(4, 4, (0, 0, W, H), [two[1]], annotator="p1"),
    )  # fmt: skip
    record = Record(1, record.path, W, H, objects, name="sub dir/ü.png")
    lost = write_sets({"all": Dataset.of([record], {4: "cell", 9: "dust", 10: "none"})}, tmp_path / "out", "labelme")
    assert lost == [
        "labelme has no place for who drew an object, with what and when: 1 left out",
        "labelme has no place for categories without objects: 1 left out (none)",
        "labelme has no place for category ids: readers number the 2 sorted names",
        "labelme has masks or boxes: 1 boxes became those around their masks",
    ]
    data = json.loads((tmp_path / "out/sub dir/ü.json").read_text("utf-8"))
    assert (data["imagePath"], data["imageWidth"], data["imageData"]) == ("ü.png", W, None)
    assert [(s["shape_type"], s["group_id"], s["label"]) for s in data["shapes"]] == [
        ("polygon", 1, "cell"), ("polygon", 1, "cell"), ("mask", None, "dust"), ("rectangle", None, "cell"),
        ("polygon", None, "cell"),
    ]  # fmt: skip
    again = read_dataset(tmp_path / "out")[0].annotations
    assert [a.box for a in again] == [objects[0].box, objects[1].box, objects[2].box, (20, 20, 30, 28)]
    assert again[0].segmentation == two
    assert [a.mask(H, W) for a in again] == [a.mask(H, W) for a in objects]
