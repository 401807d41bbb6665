"""The same pictures and objects in every format: read, recognised, written and read again, scored."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from made_formats import MAKERS, NAMES, PICTURES, WITH_OBJECTS, truth

from tracesight.data.formats import FORMATS, read_dataset, read_sets, write_sets
from tracesight.data.record import Dataset
from tracesight.errors import UserError


def assert_same(dataset: Dataset, expected: Dataset, slack: float = 0.0) -> None:
    """The same pictures with the same objects: names, sizes, categories, boxes to `slack` pixels, masks exactly."""
    assert dataset.categories == expected.categories
    by_name = {record.name.replace("~2", ""): record for record in dataset}  # one folder may hold both sets
    assert sorted(by_name) == sorted(record.name for record in expected)
    for record in expected:
        read = by_name[record.name]
        assert read.path.read_bytes() == record.path.read_bytes()
        assert (read.height, read.width) == (record.height, record.width)
        objects = sorted(read.annotations, key=lambda a: a.box)
        for got, wanted in zip(objects, sorted(record.annotations, key=lambda a: a.box), strict=True):
            assert got.category_id == wanted.category_id
            assert got.box == pytest.approx(wanted.box, abs=slack)
            assert got.mask(read.height, read.width) == wanted.mask(record.height, record.width)


@pytest.mark.parametrize("format", WITH_OBJECTS)
def test_each_is_recognised_and_read(tmp_path: Path, format: str) -> None:
    MAKERS["coco"](tmp_path / "truth")
    MAKERS[format](tmp_path / "data")
    assert [name for name in FORMATS if FORMATS[name].fits(tmp_path / "data")] == [format]
    dataset = read_dataset(tmp_path / "data")
    assert dataset.notes == ()
    assert_same(dataset, truth(tmp_path / "truth/images"), 1e-3)
    assert len({record.id for record in dataset}) == len(PICTURES)


@pytest.mark.parametrize(("first", "second"), list(product(WITH_OBJECTS, WITH_OBJECTS)))
def test_converted_and_read_again(tmp_path: Path, first: str, second: str) -> None:
    for split in ("train", "val"):
        MAKERS[first](tmp_path / "data" / split)
    sets, findings = read_sets(tmp_path / "data")
    assert findings == []
    lost = write_sets(sets, tmp_path / "written", second)
    assert lost == []
    assert [name for name in FORMATS if FORMATS[name].fits(tmp_path / "written/train")] in ([second], [])
    again, findings = read_sets(tmp_path / "written")
    assert findings == []
    assert list(again) == ["train", "val"]
    for split, dataset in again.items():
        assert_same(dataset, sets[split], 1e-3)
        assert {record.split for record in dataset} == {split}


@pytest.mark.parametrize("format", WITH_OBJECTS)
def test_ground_truth_as_prediction_scores_one(tmp_path: Path, format: str) -> None:
    from tracesight.evaluation import evaluate

    MAKERS[format](tmp_path / "data")
    dataset = read_dataset(tmp_path / "data")
    results = [
        {
            "image_id": record.id, "category_id": a.category_id, "score": 1.0,
            "bbox": [a.box[0], a.box[1], a.box[2] - a.box[0], a.box[3] - a.box[1]],
            "segmentation": mask.to_coco(),
        }
        for record in dataset for a in record.annotations
        if (mask := a.mask(record.height, record.width)) is not None
    ]  # fmt: skip
    metrics = evaluate(results, dataset, max_objects=100, kinds=("bbox", "segm"))
    assert (metrics["bbox"]["AP@all"], metrics["segm"]["AP@all"]) == (1.0, 1.0)


def test_two_that_fit_are_both_named(tmp_path: Path) -> None:
    MAKERS["coco"](tmp_path)
    MAKERS["voc"](tmp_path)
    with pytest.raises(UserError, match="could be coco or voc; say which with --format"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, "voc").categories == read_dataset(tmp_path, "coco").categories == NAMES
