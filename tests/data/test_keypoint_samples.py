"""Keypoints on their way into a batch: every turn of a picture swaps left and right, cuts hide what they cut off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tracesight.data.batch import collate
from tracesight.data.dataset import Dataset
from tracesight.data.formats import read_dataset, write_sets
from tracesight.data.formats.places import ALL
from tracesight.data.loader import training_batches
from tracesight.data.points import PERSON, Keypoints, with_points
from tracesight.data.record import Annotation, Record
from tracesight.data.sample import Sample, load_sample
from tracesight.data.transforms import (
    eval_transform,
    flip_horizontal,
    flip_vertical,
    large_scale_jitter,
    resize_crop,
    train_transform,
    transpose,
)
from tracesight.errors import UserError

NAMES = ("nose", "left_hand", "right_hand", "tail")


def sample() -> Sample:
    """Two objects on a picture of 40 × 60 pixels; the second one's category has no points."""
    boxes = np.array([[10, 5, 30, 35], [40, 10, 50, 20]], np.float32)
    points = np.zeros((2, 4, 3), np.float32)
    points[0] = [[20, 10, 2], [12, 20, 1], [28, 22, 2], [0, 0, 0]]
    mirrored = np.array([[0, 2, 1, 3], [0, 1, 2, 3]])
    nobody = np.zeros(2, bool)
    picture = np.zeros((40, 60, 3), np.uint8)
    return Sample(picture, boxes, np.array([1, 2]), nobody, None, boxes, keypoints=points, mirrored=mirrored)


def seen(found: Sample, number: int = 0) -> list[list[float] | None]:
    return [row[:2].tolist() if row[2] else None for row in found.keypoints[number]]


def test_names_say_what_a_mirror_swaps():
    assert Keypoints(NAMES).mirrored == (0, 2, 1, 3)
    assert Keypoints(("Left Eye", "mouth", "right eye", "hand_left", "hand_right", "left_over")).mirrored == (
        2, 1, 0, 4, 3, 5
    )  # fmt: skip
    assert Keypoints(NAMES, swaps=()).mirrored == (0, 1, 2, 3)
    assert Keypoints(("1", "2", "3"), swaps=((0, 2),)).mirrored == (2, 1, 0)
    twins = [PERSON.names[place] for place in PERSON.mirrored]
    assert twins[0] == "nose"
    assert twins[1:] == [name.replace("left", "LEFT").replace("right", "left").replace("LEFT", "right")
                         for name in PERSON.names[1:]]  # fmt: skip


def test_a_mirror_swaps_left_and_right():
    """As torchvision's references do it: x becomes width - x, and the points of the pairs change places."""
    assert seen(flip_horizontal(sample())) == [[40, 10], [32, 22], [48, 20], None]
    assert seen(flip_vertical(sample())) == [[20, 30], [28, 18], [12, 20], None]
    assert seen(transpose(sample())) == [[10, 20], [22, 28], [20, 12], None]


@pytest.mark.parametrize("turn", [flip_horizontal, flip_vertical, transpose])
def test_two_mirrors_are_none(turn):
    twice = turn(turn(sample()))
    assert np.array_equal(twice.keypoints[..., 2], sample().keypoints[..., 2])
    assert seen(twice) == seen(sample())


def test_resizing_moves_points_and_a_cut_hides_what_it_cuts_off():
    assert seen(resize_crop(sample(), (80, 120))) == [[40, 20], [24, 40], [56, 44], None]
    cut = resize_crop(sample(), (40, 60), (8, 12, 30, 16))  # from y 8 and x 12
    assert seen(cut) == [[8, 2], [0, 12], [16, 14], None]  # the edges belong to the picture
    cut = resize_crop(sample(), (40, 60), (12, 13, 20, 40))
    assert seen(cut) == [None, None, [15, 10], None]
    assert seen(resize_crop(sample(), (40, 60), (0, 36, 40, 24))) == [None] * 4  # the other object alone
    assert len(sample().keypoints) == 2


def test_a_batch_holds_the_points_padded():
    several = [sample(), resize_crop(sample(), (40, 60), (0, 36, 40, 24))]
    _, targets = collate(several, [(0, 0), (0, 1)], with_masks=False)
    assert targets.keypoints.shape == (2, 32, 4, 3)
    assert targets.keypoints[0, 0].tolist() == [[20, 10, 2], [12, 20, 1], [28, 22, 2], [0, 0, 0]]
    assert not targets.keypoints[0, 1:].any() and not targets.keypoints[1].any()
    without = replace(sample(), keypoints=None, mirrored=None)  # type: ignore[arg-type]
    assert collate([without], [(0, 0)], with_masks=False)[1].keypoints.shape == (1, 32, 0, 3)


@pytest.fixture
def labelled(tmp_path: Path) -> Dataset:
    """Three pictures: two objects with points, one that shows nothing, one whose points are all hidden or missing."""
    rng, records = np.random.default_rng(0), []
    points = ((20.0, 10.0, 2), (12.0, 20.0, 1), (28.0, 22.0, 2), (0.0, 0.0, 0))
    objects = [
        (Annotation(1, 7, (10, 5, 30, 35), keypoints=points), Annotation(2, 9, (40, 10, 50, 20))),
        (),
        (Annotation(3, 7, (10, 5, 30, 35), keypoints=((0.0, 0.0, 0),) * 4),),
    ]
    for number, labels in enumerate(objects, start=1):
        path = tmp_path / "pictures" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
        records.append(Record(number, path, 60, 40, labels))
    return Dataset.of(records, {7: "cat", 9: "box"}, tmp_path, keypoints={7: Keypoints(NAMES, ((0, 3),))})


@pytest.mark.parametrize("transform", [train_transform, large_scale_jitter])
def test_points_move_with_their_box_whatever_is_done(labelled: Dataset, transform):
    """A point at a known place of its box is found at that place of the box again, mirrored or not."""
    from functools import partial

    record = labelled[0]
    corner = replace(
        record.annotations[0], keypoints=((10.0, 5.0, 2), (10.0, 35.0, 2), (30.0, 35.0, 2), (20.0, 20.0, 2))
    )
    dataset = labelled.with_records({0: replace(record, annotations=(corner,))}).subset([0])
    drawn = partial(transform, image_size=64, scales=(0.6, 1.0), vertical_flip=True, transpose=True)
    batches = training_batches(
        dataset, batch_size=1, seed=3, steps=24, transform=drawn, with_masks=False, keypoints=4
    )  # fmt: skip
    places = set()
    for loaded in batches:
        box, points = loaded.targets.boxes[0, 0].numpy(), loaded.targets.keypoints[0, 0].numpy()
        if not loaded.targets.valid[0, 0]:
            continue
        share = np.round((points[:, :2] - box[:2]) / (box[2:] - box[:2]), 3)
        places.add(tuple(share[0].tolist()))
        assert np.allclose(share[3], 0.5, atol=0.02)
        # Of the two hands on one side of the box each is at one of its ends.
        assert set(map(tuple, np.round(share[:3]).tolist())) <= {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert len({(round(x), round(y)) for x, y in places}) == 4


def test_labels_become_samples_and_too_many_points_are_named(labelled: Dataset):
    loaded = load_sample(labelled[0], labelled.labels, False, 3, 5, labelled.keypoints)
    assert loaded.keypoints.shape == (2, 5, 3)
    assert loaded.mirrored.tolist() == [[0, 2, 1, 3, 4], [0, 1, 2, 3, 4]]
    assert seen(eval_transform(loaded, image_size=80)) == [[40, 20], [24, 40], [56, 44], None, None]
    assert load_sample(labelled[1], labelled.labels, False, 3, 5, labelled.keypoints).keypoints.shape == (0, 5, 3)
    with pytest.raises(UserError, match=r"1\.png: annotation 1 has 4 keypoints, and 3 are learned"):
        load_sample(labelled[0], labelled.labels, False, 3, 3, labelled.keypoints)


def test_points_without_names_get_numbers_and_unequal_ones_are_named(labelled: Dataset):
    assert with_points(labelled) is labelled
    bare = with_points(replace(labelled, keypoints={}))
    assert bare.keypoints == {7: Keypoints(("1", "2", "3", "4"))}
    with pytest.raises(UserError, match=r"1\.png: annotation 1 has 4 keypoints, and its category 2"):
        with_points(replace(labelled, keypoints={7: Keypoints(("a", "b"))}))
    with pytest.raises(UserError, match="category 7 has two keypoints of one name"):
        with_points(replace(labelled, keypoints={7: Keypoints(("a", "a", "b", "c"))}))


def test_coco_keeps_pairs_that_were_told(labelled: Dataset, tmp_path: Path):
    told = replace(labelled, keypoints={7: Keypoints(NAMES, ((0, 3),), ((0, 3),))})
    write_sets({ALL: told}, tmp_path / "out", "coco")
    again = read_dataset(tmp_path / "out")
    assert again.keypoints == told.keypoints
    assert labelled.digest != told.digest
    file = next((tmp_path / "out").rglob("instances.json"))
    labels = json.loads(file.read_text())
    assert labels["categories"][0]["flip_pairs"] == [[1, 4]]
    labels["categories"][0]["flip_pairs"] = [[1, 9]]
    file.write_text(json.dumps(labels))
    with pytest.raises(UserError, match="flip_pairs must be pairs of numbers from 1 to 4"):
        read_dataset(tmp_path / "out")


@pytest.mark.parametrize(("places", "swaps"), [([0, 2, 1], ((1, 2),)), (None, None)])
def test_yolo_tells_pairs(tmp_path: Path, places, swaps):
    data = {"names": ["cat"], "kpt_shape": [3, 3], **({"flip_idx": places} if places else {})}
    root = tmp_path / "in"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    Image.new("RGB", (60, 40)).save(root / "images" / "a.png")
    (root / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5 0.5 0.5 2 0.3 0.4 1 0 0 0\n")
    (root / "data.yaml").write_text(yaml.safe_dump(data))
    dataset = read_dataset(root)
    assert dataset.keypoints == ({0: Keypoints(("1", "2", "3"), swaps=swaps)} if places else {})
    write_sets({ALL: dataset}, tmp_path / "out", "yolo")
    assert read_dataset(tmp_path / "out").keypoints == dataset.keypoints
    (root / "data.yaml").write_text(yaml.safe_dump({**data, "flip_idx": [1, 2, 0]}))
    with pytest.raises(UserError, match="flip_idx must be the places of 3 points in a mirror"):
        read_dataset(root)
