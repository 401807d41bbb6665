"""What differs between two states of a data set, whatever they are written in."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_formats import MAKERS, WITH_OBJECTS
from made_sets import make_set

from tracesight.data.dataset import Dataset
from tracesight.data.diff import Difference, compare
from tracesight.data.formats import read_sets, write_sets
from tracesight.data.record import Annotation
from tracesight.scene.mask import Mask


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    categories = ((1, "bolt"), (2, "nut"))
    return make_set(tmp_path / "a", [(60, 80), (70, 60), (50, 50)], categories=categories)


def changed(dataset: Dataset, at: int, *annotations: Annotation, **fields: Any) -> Dataset:
    """With other annotations or fields of the record `at`."""
    records = list(dataset)
    records[at] = replace(records[at], annotations=annotations or records[at].annotations, **fields)
    return Dataset.of(records, dataset.categories, dataset.path)


def difference(before: Dataset, after: Dataset, **options: Any) -> Difference:
    return compare({"all": before}, {"all": after}, **options)


def told(before: Dataset, after: Dataset, **options: Any) -> list[tuple[str, str]]:
    return [(change.what, change.how) for change in difference(before, after, **options).changes]


def test_the_same_is_the_same_in_any_order_with_any_ids(dataset: Dataset) -> None:
    found = difference(dataset, dataset)
    assert (found.changes, found.same, found.notes) == ([], 3, [])
    turned = [
        replace(record, annotations=tuple(replace(a, id=f"x{a.id}") for a in record.annotations[::-1]))
        for record in list(dataset)[::-1]
    ]
    assert difference(dataset, Dataset.of(turned, dataset.categories)).changes == []


def test_every_change_of_an_object(dataset: Dataset) -> None:
    one, two, three = dataset[0].annotations
    x1, y1, x2, y2 = one.box
    away = replace(one, box=(x1 + 3, y1, x2 + 3, y2), annotator="Jo", time="2024-05-06")
    (change,) = difference(dataset, changed(dataset, 0, away, two, three)).changes
    assert (change.what, change.how, change.by, change.time) == ("box", "moved", "Jo", "2024-05-06")
    assert change.about.startswith("bolt 0 at (") and change.about.endswith("by up to 3.0 px")
    near = replace(one, box=(x1 + 0.4, y1, x2, y2 - 0.4))
    assert told(dataset, changed(dataset, 0, near, two, three)) == []
    assert told(dataset, changed(dataset, 0, near, two, three), tolerance=0.1) == [("box", "moved")]
    assert told(dataset, changed(dataset, 0, two, three)) == [("object", "removed")]
    assert told(changed(dataset, 0, two, three), dataset) == [("object", "added")]
    assert told(dataset, changed(dataset, 0, replace(one, category_id=2), two, three)) == [("object", "relabelled")]
    assert told(dataset, changed(dataset, 0, replace(one, crowd=True), two, three)) == [("crowd", "set")]
    assert told(dataset, changed(dataset, 0, replace(one, segmentation=None), two, three)) == [("mask", "removed")]
    points = replace(one, keypoints=((5.0, 6.0, 2),))
    moved = replace(one, keypoints=((5.0, 9.0, 2),))
    assert told(dataset, changed(dataset, 0, points, two, three)) == [("keypoints", "added")]
    assert told(changed(dataset, 0, points, two, three), changed(dataset, 0, moved, two, three)) == [
        ("keypoints", "moved")
    ]


def test_masks_are_compared_by_their_pixels(dataset: Dataset) -> None:
    one, *rest = dataset[0].annotations
    pixels = one.mask(60, 80)
    assert pixels is not None
    array = pixels.to_array()
    rows, columns = np.nonzero(array)
    array[rows[0], columns[0]] = False
    almost = replace(one, segmentation=Mask.from_array(array))
    share = 1 - 1 / len(rows)
    assert told(dataset, changed(dataset, 0, almost, *rest)) == ([] if share >= 0.99 else [("mask", "changed")])
    array[rows[: len(rows) // 2], columns[: len(rows) // 2]] = False
    half = replace(one, segmentation=Mask.from_array(array))
    (change,) = difference(dataset, changed(dataset, 0, half, *rest)).changes
    assert (change.what, change.how) == ("mask", "changed") and "IoU 0.5" in change.about


def test_a_moved_and_relabelled_object_is_one_by_its_id(dataset: Dataset) -> None:
    one, *rest = dataset[0].annotations
    x1, y1, x2, y2 = one.box
    other = replace(one, category_id=2, box=(x1 + (x2 - x1) * 0.6, y1, x2 + (x2 - x1) * 0.6, y2))
    assert told(dataset, changed(dataset, 0, other, *rest)) == [("object", "relabelled"), ("box", "moved")]
    assert sorted(told(dataset, changed(dataset, 0, replace(other, id="new"), *rest))) == [
        ("object", "added"), ("object", "removed"),
    ]  # fmt: skip


def test_pictures_categories_and_what_is_said_of_them(dataset: Dataset, tmp_path: Path) -> None:
    copy = Path(shutil.copy(dataset[2].path, tmp_path / "other.png"))
    with copy.open("ab") as file:
        file.write(b"\0")
    records = list(dataset)
    records[1] = replace(records[1], name="renamed.png", licence="MIT", group="g2")
    records[2] = replace(records[2], path=copy, labels=(1,))
    after = Dataset.of(records, {1: "screw", 2: "nut"})
    before = changed(dataset, 1, licence="CC0", group=None)
    assert [str(change) for change in difference(before, after).changes] == [
        "category renamed: screw: was bolt",
        "picture renamed: renamed.png: was picture1.png",
        "picture replaced: picture2.png: other content under the same name",
        "licence changed: renamed.png: was CC0, is MIT",
        "label added: picture2.png: screw",
    ]
    found = compare({"train": dataset}, {"train": dataset.subset([0]), "val": dataset.subset([1])})
    assert [str(change) for change in found.changes] == [
        "picture moved: val/picture1.png: was train/picture1.png", "picture removed: train/picture2.png",
    ]  # fmt: skip
    assert found.same == 1


def test_annotators_are_called_as_asked(dataset: Dataset) -> None:
    one, *rest = dataset[0].annotations
    before = changed(dataset, 0, replace(one, annotator="Jo"), *rest)
    after = changed(dataset, 0, replace(one, annotator="Max"), *rest)
    (change,) = difference(before, after, called=str.upper).changes
    assert (change.what, change.by) == ("annotator", "MAX") and change.about.endswith("was JO")
    (gone,) = difference(before, changed(dataset, 0, *rest)).changes
    assert (gone.how, gone.by) == ("removed", "Jo")


@pytest.mark.parametrize("format", WITH_OBJECTS)
def test_a_copy_in_another_format_has_no_differences(format: str, tmp_path: Path) -> None:
    MAKERS["coco"](tmp_path / "coco")
    before = read_sets(tmp_path / "coco")[0]
    write_sets(before, tmp_path / "copy", format)
    found = compare(before, read_sets(tmp_path / "copy", format)[0])
    kept = [c for c in found.changes if c.what not in ("crowd", "difficult", "truncated", "keypoints")]
    assert [str(change) for change in kept] == []
