"""The same pictures and objects in every format: read, recognised, written and read again, scored."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from made_formats import MAKERS, NAMES, PICTURES, WITH_OBJECTS, make_maps, truth, write_pictures
from made_sets import blob
from PIL import Image

from tracesight.data.dataset import Dataset
from tracesight.data.formats import FORMATS, read_dataset, read_sets, read_splits, write_sets
from tracesight.data.loader import training_batches
from tracesight.data.record import Annotation, Record
from tracesight.data.transforms import train_transform
from tracesight.errors import UserError
from tracesight.scene.mask import Mask


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


# VOC has one folder for the pictures of all sets, which are of the same names here.
RENAMED = "names of pictures that are taken, or that some systems refuse"


@pytest.mark.parametrize(("first", "second"), list(product(WITH_OBJECTS, WITH_OBJECTS)))
def test_converted_and_read_again(tmp_path: Path, first: str, second: str) -> None:
    for split in ("train", "val"):
        MAKERS[first](tmp_path / "data" / split)
    sets, findings = read_sets(tmp_path / "data")
    assert findings == []
    lost = write_sets(sets, tmp_path / "written", second)
    assert [line.split(":")[0] for line in lost] == ([RENAMED] if second == "voc" else [])
    assert [name for name in FORMATS if FORMATS[name].fits(tmp_path / "written/train")] in ([second], [])
    again, findings = read_sets(tmp_path / "written")
    assert findings == []
    assert list(again) == ["train", "val"]
    for split, dataset in again.items():
        assert_same(dataset, sets[split], 1e-3)
        assert {record.split for record in dataset} == {split}


@pytest.mark.parametrize("format", [*MAKERS, "maps", "maps beside"])
def test_predict_takes_the_pictures_and_never_masks(tmp_path: Path, format: str) -> None:
    from tracesight.predict import find_pictures

    make = MAKERS.get(format, partial(make_maps, beside=format.endswith("beside")))
    for split in ("train", "val"):
        make(tmp_path / split)
    for folder, count in ((tmp_path / "train", 5), (tmp_path, 10)):
        found = find_pictures([folder])
        assert len(found) == count
        assert all("mask" not in str(path.relative_to(folder)).lower() for path, _ in found)
        assert not any("Segmentation" in str(path) for path, _ in found)


@pytest.mark.parametrize("beside", [False, True])
def test_maps_of_object_numbers(tmp_path: Path, beside: bool) -> None:
    write_pictures(tmp_path / "truth")
    make_maps(tmp_path / "data", beside)
    assert [name for name in FORMATS if FORMATS[name].fits(tmp_path / "data")] == ["masks"]
    dataset = read_dataset(tmp_path / "data")
    expected = truth(tmp_path / "truth")
    objects = [replace(r, annotations=tuple(replace(a, category_id=1) for a in r.annotations)) for r in expected]
    assert_same(dataset, Dataset.of(objects, {1: "object"}))


def test_folders_of_categories(tmp_path: Path) -> None:
    MAKERS["imagefolder"](tmp_path / "data")
    assert [name for name in FORMATS if FORMATS[name].fits(tmp_path / "data")] == ["imagefolder"]
    dataset = read_dataset(tmp_path / "data")
    assert dataset.categories == {1: "with/bolt", 2: "without"}
    bolts = {Path(p.name).name for p in PICTURES if any(o.category == "bolt" for o in p.objects)}
    assert {record.path.name for record in dataset if record.labels == (1,)} == bolts
    assert {record.labels for record in dataset} == {(1,), (2,)}
    (tmp_path / "data/top.png").write_bytes(dataset[0].path.read_bytes())
    again, findings = read_sets(tmp_path / "data", "imagefolder")
    assert len(again["all"]) == len(PICTURES)
    assert ["lies in no category" in str(finding) for finding in findings] == [True]


def test_bare_pictures(tmp_path: Path) -> None:
    MAKERS["pictures"](tmp_path)
    assert [name for name in FORMATS if FORMATS[name].fits(tmp_path)] == ["pictures"]
    dataset = read_dataset(tmp_path)
    assert (dataset.categories, [record.name for record in dataset]) == ({}, [picture.name for picture in PICTURES])
    assert all(record.annotations == record.labels == () for record in dataset)
    (tmp_path / "labels.csv").write_text("a.png,bolt")
    with pytest.raises(UserError, match="no labels of a known format in it"):
        read_dataset(tmp_path)
    assert len(read_dataset(tmp_path, "pictures")) == len(PICTURES)


@pytest.mark.parametrize("second", ["labelme", "imagefolder", "pictures"])
def test_categories_of_pictures_and_bare_pictures_are_converted(tmp_path: Path, second: str) -> None:
    MAKERS["imagefolder"](tmp_path / "data")
    sets, _ = read_sets(tmp_path / "data")
    lost = write_sets(sets, tmp_path / "written", second)
    again = read_dataset(tmp_path / "written", second)
    by_digest = {record.path.read_bytes(): record.labels for record in sets["all"]}
    if second == "pictures":
        assert lost == ["pictures has no place for categories of a picture as a whole: 5 left out"]
        by_digest = dict.fromkeys(by_digest, ())
    else:
        assert (lost, again.categories) == ([], sets["all"].categories)
    assert {record.path.read_bytes(): record.labels for record in again} == by_digest


def test_objects_have_no_place_among_categories_of_pictures(tmp_path: Path) -> None:
    MAKERS["coco"](tmp_path / "data")
    sets, _ = read_sets(tmp_path / "data")
    with pytest.raises(UserError, match="no picture has a category as a whole"):
        write_sets(sets, tmp_path / "written", "imagefolder")
    assert write_sets(sets, tmp_path / "bare", "pictures") == ["pictures has no place for objects: 8 left out"]


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


def forty_pictures(folder: Path) -> Dataset:
    """Pictures of noise with ellipses that do not overlap, one to six each, of two categories."""
    random, records = np.random.default_rng(7), []
    for number in range(1, 41):
        cells, side = (int(random.integers(1, 3)), int(random.integers(1, 4))), int(random.integers(14, 22))
        height, width = cells[0] * side, cells[1] * side
        path = folder / f"p {number % 3}/{random.integers(10**6)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        masks = [
            Mask.from_crop(blob(side, side, random), (row * side, column * side), (height, width))
            for row in range(cells[0]) for column in range(cells[1])
        ]  # fmt: skip
        objects = (Annotation(k, int(random.integers(1, 3)), mask.box, mask) for k, mask in enumerate(masks, start=1))
        name = path.relative_to(folder).as_posix()
        records.append(Record(number, path, width, height, tuple(objects), name=name))
    records.sort(key=lambda record: record.name)
    return Dataset.of([replace(record, id=place) for place, record in enumerate(records, start=1)], NAMES, folder)


def test_forty_pictures_give_the_same_training_batches_in_every_format(tmp_path: Path) -> None:
    """Pixels, categories and masks bit for bit, boxes to the round-trip tolerance, the order of objects too."""
    dataset = forty_pictures(tmp_path / "pictures")
    transform = partial(train_transform, image_size=32, scales=(0.6, 1.5), crop_size=32, transpose=True, colour=0.3)
    batches = {}
    for format in WITH_OBJECTS:
        lost = write_sets({"train": dataset, "val": dataset.subset([0])}, tmp_path / format, format)
        assert [line.split(":")[0] for line in lost] == ([RENAMED] if format == "voc" else [])
        train, val, _ = read_splits(tmp_path / format, 0)
        assert val is not None
        assert train.categories == NAMES
        batches[format] = list(training_batches(train, batch_size=8, seed=3, steps=6, transform=transform))
    for format, others in batches.items():
        for ours, theirs in zip(batches["coco"], others, strict=True):
            assert ours.batch.images.equal(theirs.batch.images), format
            for name, value in ours.targets._asdict().items():
                if name in ("boxes", "mask_boxes"):
                    assert value.allclose(getattr(theirs.targets, name), atol=1e-3), (format, name)
                else:
                    assert value.equal(getattr(theirs.targets, name)), (format, name)
