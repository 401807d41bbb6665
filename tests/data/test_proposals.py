"""Proposals: their file, what is wrong with one, their way with the picture into a batch, and selective search."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tracesight.data import selective_search as search
from tracesight.data.batch import collate, predict_batch
from tracesight.data.dataset import Dataset
from tracesight.data.loader import training_batches
from tracesight.data.proposals import Row, read_proposals, write_proposals
from tracesight.data.record import Annotation, Record
from tracesight.data.sample import Sample
from tracesight.data.transforms import flip_horizontal, flip_vertical, resize_crop, train_transform, transpose
from tracesight.errors import UserError
from tracesight.lineage import file_digest

BOXES = np.array([[2, 3, 30, 20], [0, 0, 60, 40]], np.float32)


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 60)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def dataset(paths: list[Path]) -> Dataset:
    records = (
        Record(number, path, 60, 40, (Annotation(number, 1, (4.0, 4.0, 30.0, 30.0)),))
        for number, path in enumerate(paths, start=1)
    )
    return Dataset.of(records, {1: "thing"})


@pytest.fixture
def two(tmp_path) -> list[Path]:
    return [picture(tmp_path / "a.png", 1), picture(tmp_path / "b.png", 2)]


def row(path: Path, boxes: np.ndarray = BOXES) -> Row:
    return Row(path.name, file_digest(path), (40, 60), boxes)


def test_what_is_written_is_read_again(two, tmp_path):
    made = write_proposals(tmp_path / "p.safetensors", [row(two[0]), row(two[1], BOXES[:1])], "by hand")
    read = read_proposals(made.path)
    assert read.method == "by hand"
    assert read.digest == made.digest == file_digest(made.path)
    found = read.of(dataset(two))
    assert np.array_equal(found[two[0]], BOXES)
    assert np.array_equal(found[two[1]], BOXES[:1])
    assert read.notes([dataset(two)]) == []


def test_what_reaches_out_by_a_pixel_is_cut_off(two, tmp_path):
    made = write_proposals(tmp_path / "p", [row(two[0], np.array([[-0.5, -1, 61, 40.5]]))], "by hand")
    assert made.boxes.tolist() == [[0, 0, 60, 40]]


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([0, 0, np.nan, 5], r"proposal 2 of a.png \(0, 0, nan, 5\) is not finite"),
        ([0, 0, np.inf, 5], "is not finite"),
        ([5, 5, 5, 9], "has no area"),
        ([9, 5, 5, 9], "has no area"),
        ([0, 0, 62, 5], "lies outside its picture"),
        ([70, 50, 80, 60], "lies outside its picture"),
    ],
)
def test_a_box_that_cannot_be_meant_so_is_named(two, tmp_path, box, said):
    with pytest.raises(UserError, match=said):
        write_proposals(tmp_path / "p", [row(two[0], np.array([[1, 1, 9, 9], box]))], "by hand")
    assert not (tmp_path / "p").exists()


def test_files_that_are_no_proposals_are_refused(two, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_proposals(tmp_path / "none")
    (tmp_path / "text").write_text("boxes")
    with pytest.raises(UserError, match="cannot be read as proposals"):
        read_proposals(tmp_path / "text")
    from safetensors.numpy import save_file

    save_file({"boxes": BOXES}, tmp_path / "other")
    with pytest.raises(UserError, match="not a file of proposals"):
        read_proposals(tmp_path / "other")
    said = {"format": "tracesight-proposals", "version": "2", "pictures": "[]"}
    save_file({"boxes": BOXES}, tmp_path / "newer", said)
    with pytest.raises(UserError, match="version 2"):
        read_proposals(tmp_path / "newer")
    said |= {"version": "1", "pictures": json.dumps([["a.png", "0" * 64, 40, 60]])}
    save_file({"boxes": BOXES, "offsets": np.array([0, 9])}, tmp_path / "damaged", said)
    with pytest.raises(UserError, match="damaged"):
        read_proposals(tmp_path / "damaged")
    with pytest.raises(UserError, match="no proposals at all"):
        write_proposals(tmp_path / "p", [row(two[0], BOXES[:0])], "by hand")
    with pytest.raises(UserError, match="two rows for one picture"):
        write_proposals(tmp_path / "p", [row(two[0]), row(two[0])], "by hand")


def test_pictures_and_proposals_that_do_not_belong_together_are_named(two, tmp_path):
    made = write_proposals(tmp_path / "p", [row(two[0])], "by hand")
    with pytest.raises(UserError, match=r"b\.png: .* has no proposals for it"):
        made.of(dataset(two))
    picture(two[0], 3)
    with pytest.raises(UserError, match=r"a\.png: is not the picture that"):
        read_proposals(made.path).find(two[0], file_digest(two[0]))


def test_pictures_without_proposals_or_not_in_the_set_are_noted(two, tmp_path):
    made = write_proposals(tmp_path / "p", [row(two[0]), row(two[1], BOXES[:0])], "by hand")
    assert made.notes([dataset(two)]) == ["p: no proposals in 1 pictures, the first: b.png"]
    assert made.notes([dataset(two[1:])])[0] == "p: 1 pictures with proposals are not in the data; they are left out"


def marked(boxes: np.ndarray) -> Sample:
    """A picture in which each object and its proposal are the same."""
    boxes = boxes.astype(np.float32)
    image = np.zeros((40, 60, 3), np.uint8)
    return Sample(image, boxes, np.ones(len(boxes), np.int64), np.zeros(len(boxes), bool), None, boxes, boxes)


@pytest.mark.parametrize(
    "change",
    [
        flip_horizontal,
        flip_vertical,
        transpose,
        lambda s: resize_crop(s, (80, 90)),
        lambda s: resize_crop(s, (60, 90), (10, 20, 40, 50)),
        lambda s: train_transform(
            s,
            np.random.default_rng(3),
            image_size=64,
            scales=(0.8, 1.2),
            crop_size=48,
            vertical_flip=True,
            transpose=True,
        ),
    ],
)
def test_proposals_follow_the_picture_as_objects_do(change):
    changed = change(marked(np.array([[20, 10, 40, 30], [15, 12, 45, 25]])))
    assert len(changed.boxes) == 2
    assert np.allclose(changed.proposals, changed.boxes, atol=1e-4)


def test_proposals_outside_a_cut_are_left_out():
    changed = resize_crop(marked(np.array([[20, 10, 40, 30], [0, 0, 5, 5]])), (40, 60), (10, 20, 20, 30))
    assert changed.proposals.tolist() == [[0, 0, 20, 20]]


def test_a_batch_pads_proposals_and_says_which_are_there():
    samples = [marked(BOXES), marked(BOXES[:0])]
    batch, _ = collate(samples, [(0, 0), (0, 1)], with_masks=False)
    assert batch.proposals.shape == (2, 32, 4)
    assert batch.proposals_valid.sum(1).tolist() == [2, 0]
    assert batch.proposals[0, :2].tolist() == BOXES.tolist()
    # Of pictures to predict on they are scaled as the picture is.
    batch = predict_batch([np.zeros((40, 60, 3), np.uint8)], 80, 200, [BOXES])
    assert batch.proposals[0, :2].tolist() == (BOXES * 2).tolist()
    assert predict_batch([np.zeros((40, 60, 3), np.uint8)], 80).proposals is None


def test_batches_of_a_set_carry_them_with_any_number_of_workers(two, tmp_path):
    data = dataset(two)
    made = write_proposals(tmp_path / "p", [row(two[0]), row(two[1], BOXES[:1])], "by hand")

    def batches(workers: int) -> list:
        transform = lambda sample, rng: train_transform(sample, rng, image_size=None)  # noqa: E731
        order = {"batch_size": 2, "seed": 0, "steps": 2, "workers": workers}
        return list(training_batches(data, transform=transform, with_masks=False, proposals=made.of(data), **order))

    alone, helped = batches(0), batches(1)
    assert [sorted(loaded.batch.proposals_valid.sum(1).tolist()) for loaded in alone] == [[1, 2]] * 2
    for one, other in zip(alone, helped):
        assert one.batch.proposals.equal(other.batch.proposals)


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setattr(search.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'tracesight\[proposals\]'"):
        search.require()


def test_an_opencv_without_the_contributed_part_is_named(monkeypatch):
    monkeypatch.setattr(search, "available", lambda: True)
    monkeypatch.setitem(sys.modules, "cv2", object())
    with pytest.raises(UserError, match="opencv-contrib-python-headless"):
        search.require()


def test_selective_search_finds_what_stands_out_and_the_same_twice(tmp_path):
    pytest.importorskip("cv2", reason="selective search needs the extra `proposals`")
    pixels = np.full((80, 120, 3), 90, np.uint8)
    pixels[20:50, 30:70] = (250, 30, 30)
    found = search.selective_search(tmp_path / "x.png", "ab" * 32, pixels, most=50)
    again = search.selective_search(tmp_path / "x.png", "ab" * 32, pixels, most=50)
    assert np.array_equal(found, again)
    assert 0 < len(found) <= 50
    assert (found[:, 2:] <= [120, 80]).all()
    low, high = np.maximum(found[:, :2], [30, 20]), np.minimum(found[:, 2:], [70, 50])
    shared = np.clip(high - low, 0, None).prod(1)
    union = (found[:, 2:] - found[:, :2]).prod(1) + 40 * 30 - shared
    assert (shared / union).max() > 0.8
    # A larger picture is searched at another size, and its boxes are its own.
    large = search.selective_search(tmp_path / "x.png", "ab" * 32, pixels.repeat(4, 0).repeat(4, 1), side=80)
    assert large[:, 2].max() > 200
