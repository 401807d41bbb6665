"""COCO files: what is kept, what is put right and counted, and what is refused with one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_dataset, read_sets, write_sets
from tracesight.data.points import Keypoints
from tracesight.data.record import Annotation, Record
from tracesight.errors import UserError
from tracesight.scene.mask import Mask

H, W = 20, 30


def coco(**more: Any) -> dict[str, Any]:
    array = np.zeros((H, W), bool)
    array[2:8, 3:9] = True
    mask = Mask.from_array(array)
    base = {"image_id": 5, "category_id": -7, "bbox": [3, 2, 6, 6], "iscrowd": 0, "area": 36}
    return {
        "images": [
            {"id": 5, "file_name": "sub/a.png", "width": W, "height": H, "license": 2, "date_captured": "2020"},
            {"id": 0, "file_name": "b.png", "width": W, "height": H},
        ],
        "licenses": [{"id": 2, "name": "CC0"}],
        "categories": [{"id": 10**12, "name": "far"}, {"id": -7, "name": "minus"}, {"id": 0, "name": "zero"}],
        "annotations": [
            {**base, "id": 0, "segmentation": mask.to_coco(), "annotator": "p1"},
            {**base, "id": 1, "segmentation": {"size": [H, W], "counts": mask.to_runs()}, "iscrowd": 1},
            {**base, "id": 2, "segmentation": [[3, 2, 9, 2, 9, 8], [3, 2, 9, 8, 3, 8]], "category_id": 10**12},
            {**base, "id": "three", "segmentation": [], "category_id": 0},
        ],
        **more,
    }


def write(folder: Path, data: Any) -> Path:
    (folder / "images/sub").mkdir(parents=True, exist_ok=True)
    for name in ("sub/a.png", "b.png"):
        Image.new("RGB", (W, H)).save(folder / "images" / name)
    path = folder / "labels.json"
    path.write_text(json.dumps(data))
    return path


def test_everything_is_kept(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path, coco()), split="train")
    record, negative = dataset
    assert (record.id, record.height, record.width, record.split) == (5, H, W, "train")
    assert record.path == tmp_path / "images/sub/a.png"
    assert (record.licence, record.captured_at) == ("CC0", "2020")
    assert (negative.id, negative.annotations) == (0, ())
    assert dataset.categories == {-7: "minus", 0: "zero", 10**12: "far"}
    assert dataset.notes == ()
    compressed, crowd, polygons, box_only = record.annotations
    assert (compressed.id, compressed.box, compressed.annotator) == (0, (3, 2, 9, 8), "p1")
    assert compressed.mask(H, W) == crowd.mask(H, W)
    assert crowd.crowd and not compressed.crowd
    assert polygons.mask(H, W).area == pytest.approx(36, abs=8)
    assert (box_only.id, box_only.mask(H, W), box_only.category_id) == ("three", None, 0)


@pytest.mark.parametrize("layout", ["beside", "images", "coco", "coco images"])
def test_pictures_are_found_in_the_usual_places(tmp_path: Path, layout: str) -> None:
    labels, pictures = {
        "beside": ("x.json", "."), "images": ("x.json", "images"), "coco": ("annotations/instances_val2017.json",
        "val2017"), "coco images": ("annotations/instances_val2017.json", "images/val2017"),
    }[layout]  # fmt: skip
    data = coco(annotations=[])
    for image in data["images"]:
        path = tmp_path / pictures / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (W, H)).save(path)
    (tmp_path / labels).parent.mkdir(exist_ok=True)
    (tmp_path / labels).write_text(json.dumps(data))
    dataset = read_dataset(tmp_path / labels)
    assert all(record.path.is_file() for record in dataset)


def test_boxes_up_to_a_pixel_outside_are_clipped_and_counted(tmp_path: Path) -> None:
    data = coco()
    for annotation, box in zip(data["annotations"], ([-1, -0.5, 6, 6], [25, 15, 6, 5.75], [3, 2, 6, 6], [0, 0, W, H])):
        annotation["bbox"] = box
    dataset = read_dataset(write(tmp_path, data))
    assert [a.box for a in dataset[0].annotations] == [(0, 0, 5, 5.5), (25, 15, 30, 20), (3, 2, 9, 8), (0, 0, W, H)]
    assert len(dataset.notes) == 1
    assert "2 boxes" in dataset.notes[0]


def annotation(position: int = 0, **change: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["annotations"][position].update(change)


def image(position: int = 0, **change: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["images"][position].update(change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("images"), "not COCO instances: it has no 'images'"),
        (lambda d: d.update(annotations={}), "'annotations' must be a list"),
        (lambda d: d.update(images=[], annotations=[]), "no pictures"),
        (lambda d: d.update(categories=[], annotations=[]), "'categories' is empty"),
        (lambda d: d["categories"].append({"id": 0, "name": "again"}), "category id 0 occurs twice"),
        (lambda d: d["categories"].append({"id": "3", "name": "nut"}), "category 'nut' needs a whole number as id"),
        (image(1, id=5), "picture id 5 occurs twice"),
        (image(0, id="5"), "picture '5': it needs a whole number"),
        (image(0, width=None), "sub/a.png (id 5): it needs a width"),
        (image(0, height=0), "sub/a.png (id 5): it needs a height"),
        (image(0, file_name="../a.png"), "../a.png (id 5): it lies outside"),
        (image(0, file_name="/etc/a.png"), "/etc/a.png (id 5): it lies outside"),
        (lambda d: [row.update(file_name="none.png") for row in d["images"]], "none.png is in none of"),
        (image(1, neg_category_ids=[0, 3]), "picture b.png (id 0): neg_category_ids: there is no category with id 3"),
        (image(0, neg_category_ids=7), "picture sub/a.png (id 5): neg_category_ids must be a list of category ids"),
        (image(0, not_exhaustive_category_ids=["0"]), "not_exhaustive_category_ids: there is no category with id '0'"),
        (image(0, file_name=None, coco_url="http://x/a/../b.png/../../c.png"), "../c.png (id 5): it lies outside"),
        (annotation(1, id=0), "annotation id 0 occurs twice"),
        (annotation(1, id=None), "annotation number 2: it has no id"),
        (annotation(0, image_id=6), "annotation 0: there is no picture with id 6"),
        (annotation(0, category_id=1), "annotation 0 on sub/a.png: there is no category with id 1"),
        (annotation(3, category_id=None), "annotation three on sub/a.png: there is no category with id None"),
        (annotation(0, bbox=[3, 2, 0, 6]), "annotation 0 on sub/a.png: the box (3, 2, 3, 8) has no area"),
        (annotation(0, bbox=[3, 2, 6, -1]), "annotation 0 on sub/a.png: the box (3, 2, 9, 1) is inverted"),
        (annotation(0, bbox=[-1.5, 2, 6, 6]), "annotation 0 on sub/a.png: the box (-1.5, 2, 4.5, 8) reaches 1.5 px"),
        (annotation(0, bbox=[3, 2, 6, 19.5]), "reaches 1.5 px outside the picture of 30 × 20"),
        (annotation(0, bbox=[-0.9, 2, 0.5, 6]), "no area inside the picture"),
        (annotation(0, bbox=[3, 2, 6]), "annotation 0 on sub/a.png: bbox must be four numbers"),
        (annotation(0, bbox=[3, 2, 6, float("nan")]), "annotation 0 on sub/a.png: bbox must be four numbers"),
        (annotation(3, bbox=None), "annotation three on sub/a.png: bbox must be four numbers"),
        (annotation(2, segmentation=[[1, 2, 3, 4]]), "annotation 2 on sub/a.png: a polygon must be"),
        (annotation(2, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "annotation 2 on sub/a.png: a polygon must be"),
        (annotation(2, segmentation="x"), "annotation 2 on sub/a.png: segmentation must be"),
        (annotation(1, segmentation={"size": [H, W], "counts": [5]}), "annotation 1 on sub/a.png: mask counts cover 5"),
        (annotation(1, segmentation={"size": [W, H], "counts": [H * W]}), "its mask is of size [30, 20]"),
        (annotation(1, segmentation={"size": [H, W]}), "annotation 1 on sub/a.png: "),
        (image(0, file_name="C:\\a.png"), "C:\\a.png (id 5): it lies outside"),
        (image(0, file_name="..\\..\\a.png"), "(id 5): it lies outside"),
        (image(0, file_name="\\\\server\\a.png"), "(id 5): it lies outside"),
        (image(0, file_name="sub/../../a.png"), "sub/../../a.png (id 5): it lies outside"),
        (annotation(0, bbox=[3, 2, 6, 10**400]), "annotation 0 on sub/a.png: bbox must be four numbers"),
        (annotation(0, bbox=[3, 2, True, 6]), "annotation 0 on sub/a.png: bbox must be four numbers"),
        (annotation(0, keypoints=[1, 2]), "annotation 0 on sub/a.png: keypoints must be x, y and visibility"),
        (annotation(0, keypoints=[1, 2, float("inf")]), "annotation 0 on sub/a.png: keypoints must be"),
        (lambda d: d["categories"][0].update(keypoints="nose"), "category 1000000000000: its keypoints cannot be read"),
        (lambda d: d["categories"][0].update(keypoints=["nose"], skeleton=[[1, 2]]), "skeleton must be pairs"),
        (lambda d: d["categories"][0].update(keypoints=["nose"], skeleton=[1]), "its keypoints cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(tmp_path: Path, change: Callable[[Any], Any], words: str) -> None:
    data = coco()
    change(data)
    path = write(tmp_path, data)
    with pytest.raises(UserError) as caught:
        read_dataset(path)
    message = str(caught.value)
    assert words in message
    assert message.startswith(str(path))
    assert "\n" not in message


@pytest.mark.parametrize("content", ["{", "[1]", "null", '"x"', "[" * 100_000, "\xff\xfe"])
def test_what_is_not_coco_at_all(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        read_dataset(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_lvis_says_of_a_picture_is_kept(tmp_path: Path) -> None:
    data = coco()
    plain = read_dataset(write(tmp_path, data))
    assert [(record.absent, record.not_exhaustive) for record in plain] == [(None, ()), (None, ())]
    data["images"][0].update(neg_category_ids=[], not_exhaustive_category_ids=[0, -7])
    data["images"][1].update(neg_category_ids=[10**12, -7, -7])
    first, second = read_dataset(write(tmp_path, data))
    assert (first.absent, first.not_exhaustive) == ((), (-7, 0))
    assert (second.absent, second.not_exhaustive) == ((-7, 10**12), ())


def test_the_digest_knows_what_is_absent_only_where_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    record = Record(5, tmp_path / "a.png", 30, 20, (Annotation(0, 7, (1.0, 2.0, 3.0, 4.0)),))
    told = [replace(record, absent=()), replace(record, absent=(8,)), replace(record, not_exhaustive=(7,)),
            replace(record, not_exhaustive=(8,)), replace(record, absent=(8,), not_exhaustive=(7,))]  # fmt: skip
    digests = [Dataset.of([r], {7: "nut", 8: "bolt"}).digest for r in (record, *told)]
    # As it was before records could say so: digests in the records of older trainings stay comparable.
    assert digests[0] == "ec3a867077848e63fff6991baaa2320000956e878329f30b44e6fa22d7de687d"
    assert len(set(digests)) == 6


def test_records_packed_before_they_could_say_what_is_absent_are_read() -> None:
    state = dict(vars(Record(5, Path("a.png"), 30, 20)))
    for name in ("absent", "not_exhaustive"):
        del state[name]
    read = object.__new__(Record)
    read.__setstate__(state)
    assert "absent" not in read.__dict__
    assert (read.absent, read.not_exhaustive, read.id) == (None, (), 5)


def test_pictures_without_a_file_name_are_named_by_their_address(tmp_path: Path) -> None:
    data = coco()
    for image, name in zip(data["images"], ("sub/a.png", "val2017/b.png")):
        del image["file_name"]
        image["coco_url"] = f"http://images.cocodataset.org/{name}"
    dataset = read_dataset(write(tmp_path, data))
    root = tmp_path / "images"
    assert [record.path for record in dataset] == [root / "sub/a.png", root / "val2017/b.png"]
    data["images"][0]["file_name"] = "b.png"
    assert read_dataset(write(tmp_path, data))[0].path == root / "b.png"


def test_windows_separators_and_backslashes_that_are_letters(tmp_path: Path) -> None:
    data = coco()
    data["images"][0]["file_name"] = "sub\\a.png"
    record = read_dataset(write(tmp_path, data))[0]
    assert (record.path, record.name) == (tmp_path / "images/sub/a.png", "sub/a.png")
    Image.new("RGB", (W, H)).save(tmp_path / "images" / "sub\\a.png")
    assert read_dataset(tmp_path)[0].path == tmp_path / "images" / "sub\\a.png"


def test_a_missing_box_is_that_of_the_mask_and_a_warning(tmp_path: Path) -> None:
    data = coco()
    for row in data["annotations"][:3]:
        del row["bbox"]
    sets, findings = read_sets(write(tmp_path, data))
    assert [a.box for a in sets["all"][0].annotations] == [(3, 2, 9, 8)] * 4
    assert [(f.kind.severity, f.kind.code, f.annotation) for f in findings] == [
        ("warning", "box-missing", 0), ("warning", "box-missing", 1), ("warning", "box-missing", 2),
    ]  # fmt: skip


def test_keypoints(tmp_path: Path) -> None:
    data = coco()
    data["categories"][1].update(keypoints=["head", "foot"], skeleton=[[1, 2]])
    data["annotations"][0]["keypoints"] = [3, 2, 2, 0, 0, 0]
    (tmp_path / "annotations").mkdir()
    write(tmp_path, data).rename(tmp_path / "annotations/person_keypoints_val2017.json")
    (tmp_path / "images").rename(tmp_path / "val2017")
    dataset = read_dataset(tmp_path)
    assert dataset.keypoints == {-7: Keypoints(("head", "foot"), ((0, 1),))}
    assert [a.keypoints for a in dataset[0].annotations] == [((3, 2, 2), (0, 0, 0)), None, None, None]


@pytest.mark.parametrize(("encoding", "read"), [("utf-8-sig", True), ("utf-16", True), ("latin-1", False)])
def test_encodings(tmp_path: Path, encoding: str, read: bool) -> None:
    data = coco()
    data["categories"][0]["name"] = "Zölle"
    path = write(tmp_path, data)
    path.write_bytes(json.dumps(data, ensure_ascii=False).encode(encoding))
    if read:
        assert "Zölle" in read_dataset(tmp_path).categories.values()
    else:
        with pytest.raises(UserError, match="not JSON"):
            read_dataset(path)


def test_files_of_this_package_are_no_labels(tmp_path: Path) -> None:
    write(tmp_path, coco())
    for name, content in (("manifest.json", '{"format": "tracesight manifest 1"}'), ("c.json", '{"@context": {}}')):
        (tmp_path / name).write_text(content)
    assert len(read_dataset(tmp_path)) == 2
    (tmp_path / "labels.json").unlink()
    assert len(read_dataset(tmp_path)) == 2, "bare pictures now"


def test_categories_without_a_name_get_one_and_are_told(tmp_path: Path) -> None:
    rows = [{"id": 1}, {"id": 2, "name": None}, {"id": 3, "name": " "}, {"id": 4, "name": 5}, {"id": -7, "name": "ok"}]
    path = write(tmp_path, coco(categories=[*rows, {"id": 0, "name": "zero"}, {"id": 10**12, "name": "far"}]))
    sets, findings = read_sets(path)
    names = sets["all"].categories
    assert [names[number] for number in (1, 2, 3, 4)] == ["category 1", "category 2", "category 3", "5"]
    assert [f.kind.code for f in findings] == ["category-unnamed"] * 4
    assert str(findings[1]) == f"{path}: category 2: its name is None, so that it is called 'category 2'; name it"


def test_what_is_said_of_the_set_as_a_whole_is_kept_or_said_to_be_lost(tmp_path: Path) -> None:
    path = write(tmp_path / "in", {"info": {"description": "cells", "year": 2020, "more": [1], "url": ""}, **coco()})
    dataset = read_dataset(path)
    assert dataset.about == {"description": "cells", "year": "2020"}
    assert read_dataset(write(tmp_path / "none", {**coco(), "info": [3]})).about == {}
    lost = write_sets({"all": dataset}, tmp_path / "out", "labelme")
    assert "labelme has no place for what is said of the set as a whole: 1 left out" in lost
