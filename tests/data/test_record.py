"""Rows that are packed come back as they were; polygons are filled as pycocotools fills them."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_sets import make_set, write_json, write_set
from pycocotools import mask as pycocotools_mask

from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_dataset
from tracesight.data.polygons import Polygons
from tracesight.data.record import Annotation, Record, unpacked
from tracesight.errors import UserError
from tracesight.scene.mask import Mask


def records() -> list[Record]:
    triangle = Annotation(0, -3, (1.0, 1.0, 5.0, 5.0), [[1, 1, 5, 1, 5, 5]], annotator="a", tool="t", time="now")
    crowd = Annotation("x", 900, (0.0, 0.0, 4.0, 4.0), None, crowd=True, area=3.5)
    return [Record(7, Path("a.png"), 10, 9, (triangle, crowd), split="train"), Record(3, Path("b.png"), 4, 4)]


def test_what_is_packed_comes_back() -> None:
    dataset = Dataset.of(iter(records()), {900: "far", -3: "minus", 0: "zero"}, "here.json", ["a note"])
    assert [dataset[0], dataset[1]] == records() == list(dataset)
    assert len(dataset) == 2
    assert dataset.category_ids == [-3, 0, 900]
    assert dataset.labels == {-3: 1, 0: 2, 900: 3}
    assert list(dataset.categories) == [-3, 0, 900]
    with pytest.raises(IndexError):
        dataset[2]


def test_masks_and_polygons_that_are_packed_come_back() -> None:
    box, array = (1.0, 1.0, 5.0, 5.0), np.zeros((9, 10), bool)
    array[2:4, 3:7] = True
    masks = [Mask.from_array(array), Mask.from_array(array.T), Mask.from_array(array[:0])]
    shapes = [
        Polygons("[[1, 1, 5.5, 1, 5, 5], [0, 0, 1, 0, 1, 1]]"),
        *masks,
        {"size": [9, 10], "counts": [90]},
        [],
        None,
    ]
    usual = tuple(Annotation(i, 1, box, shape, i % 2 > 0) for i, shape in enumerate(shapes))
    marked = tuple(Annotation(i, 1, box, shape, truncated=True) for i, shape in enumerate(shapes))
    assert usual[3] == Annotation(3, 1, box, masks[2], crowd=True)
    dataset = Dataset.of(
        [Record(1, Path("a.png"), 10, 9, usual), Record(2, Path("b/c.png"), 10, 9, marked)], {1: "cell"}
    )
    assert [record.annotations for record in dataset] == [usual, marked]
    assert [type(a.segmentation) for a in dataset[0].annotations] == [type(shape) for shape in shapes]
    assert dataset.paths() == [Path("a.png"), Path("b/c.png")]
    assert dataset.subset([1]).paths() == [Path("b/c.png")]
    assert pickle.loads(pickle.dumps(dataset[1])) == dataset[1] == unpacked(dataset.packed(1))


def test_annotations_are_made_when_they_are_looked_at() -> None:
    annotations = (
        Annotation(4, 1, (1.0, 2.0, 3.0, 4.0), Polygons("[[1, 1, 5.5, 1, 5, 5]]")),
        Annotation(5, 1, (0.0, 0.0, 1.0, 1.0)),
    )
    record = Record(1, Path("a.png"), 10, 9, annotations, split="train")
    dataset = Dataset.of([record], {1: "cell"})
    unseen = dataset[0]
    assert "annotations" not in vars(unseen)
    assert unseen.plain_annotations() == record.plain_annotations()
    again = Dataset.of([unseen], {1: "cell"})
    assert "annotations" not in vars(unseen)
    assert again[0] == record
    for copy in (pickle.loads(pickle.dumps(unseen)), replace(unseen, split="val"), unseen):
        assert copy.annotations == annotations
        assert "annotations" in vars(copy)
    assert unseen == record
    with pytest.raises(AttributeError, match="'Record' object has no attribute 'colour'"):
        _ = dataset[0].colour  # type: ignore[attr-defined]


def test_a_subset_shares_the_buffer() -> None:
    dataset = Dataset.of(records(), {-3: "minus", 900: "far"})
    subset = dataset.subset([1])
    assert [record.id for record in subset] == [3]
    assert subset.buffer is dataset.buffer
    assert [record.id for record in subset.subset([0])] == [3]


@pytest.mark.parametrize(
    ("count", "chosen"), [(0, []), (1, [0]), (3, [0, 3, 6]), (10, list(range(10))), (99, list(range(10)))]
)
def test_some_at_even_distances(count: int, chosen: list[int]) -> None:
    many = Dataset.of((Record(i, Path("a.png"), 1, 1) for i in range(10)), {1: "cell"})
    assert [record.id for record in many.evenly(count)] == chosen
    assert len(Dataset.of([], {1: "cell"}).evenly(3)) == 0


def test_records_lie_in_one_buffer_and_nowhere_else() -> None:
    """What keeps forked workers' memory flat: no field of a dataset grows by Python objects as records are added."""
    many = Dataset.of((Record(i, Path("a.png"), 1, 1) for i in range(1000)), {1: "cell"})
    grown = {name: value for name, value in vars(many).items() if not isinstance(value, np.ndarray)}
    assert set(grown) == {"categories", "path", "notes", "numbered", "keypoints", "parents", "about"}
    assert all(array.dtype != object for array in (many.buffer, many.offsets, many.order))


@pytest.mark.parametrize(
    "parts",
    [
        [[1.5, 1.5, 20.2, 3.0, 14.0, 18.5]],
        [[0, 0, 5, 0, 5, 5, 0, 5], [10, 10, 20, 10, 20, 18], [4, 4, 12, 4, 12, 12, 4, 12]],
        [[-3.0, -3.0, 40.0, 2.0, 8.0, 30.0]],
    ],
)
def test_polygons_of_several_parts_are_filled_as_pycocotools_does(parts: list[list[float]]) -> None:
    mask = Annotation(1, 1, (0, 0, 1, 1), parts).mask(20, 24)
    assert mask is not None
    expected = pycocotools_mask.decode(pycocotools_mask.merge(pycocotools_mask.frPyObjects(parts, 20, 24)))
    np.testing.assert_array_equal(mask.to_array(), expected.astype(bool))


def test_run_lengths_of_either_form_and_masks_give_the_same() -> None:
    array = np.zeros((6, 5), bool)
    array[1:4, 2:4] = True
    mask = Mask.from_array(array)
    uncompressed = {"size": [6, 5], "counts": mask.to_runs()}
    for segmentation in (mask, mask.to_coco(), uncompressed):
        assert Annotation(1, 1, (2, 1, 4, 4), segmentation).mask(6, 5) == mask
    assert Annotation(1, 1, (2, 1, 4, 4)).mask(6, 5) is None
    with pytest.raises(ValueError, match="mask of size"):
        Annotation(1, 1, (2, 1, 4, 4), mask).mask(5, 6)


def test_the_digest_follows_content_not_place_nor_order(tmp_path: Path) -> None:
    first = make_set(tmp_path / "one", [(20, 30), (25, 25)])
    digest = first.digest
    assert len(digest) == 64
    assert make_set(tmp_path / "two", [(20, 30), (25, 25)]).digest == digest
    assert first.subset([1, 0]).digest == digest
    assert first.subset([0]).digest != digest
    data = write_set(tmp_path / "three", [(20, 30), (25, 25)])
    data["annotations"][0]["area"] += 1
    write_json(tmp_path / "three", data)
    assert read_dataset(tmp_path / "three").digest != digest
    (tmp_path / "one/images/picture0.png").unlink()
    with pytest.raises(UserError, match=r"picture0\.png"):
        _ = first.subset([0]).digest
