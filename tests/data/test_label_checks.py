"""Checks of the labels of one picture, each on objects written out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tracesight.data.checks.box_alike import box_alike
from tracesight.data.checks.box_small import box_small
from tracesight.data.checks.box_twice import box_twice
from tracesight.data.checks.keypoint_count import keypoint_count
from tracesight.data.checks.keypoint_off_box import keypoint_off_box
from tracesight.data.checks.keypoint_outside import keypoint_outside
from tracesight.data.checks.label_check import LabelCheck, Labels
from tracesight.data.checks.labels import LABEL_CHECKS, THOROUGH_CHECKS, checked
from tracesight.data.checks.many import many
from tracesight.data.checks.mask_in_box import mask_in_box
from tracesight.data.checks.polygon_crossing import crossings, polygon_crossing
from tracesight.data.dataset import Dataset
from tracesight.data.points import Keypoints
from tracesight.data.polygons import Polygons
from tracesight.data.record import Annotation, Record
from tracesight.scene.mask import Mask

POINTS = {2: Keypoints(("top", "left", "right"))}
LABELS = Labels({1: "cell", 2: "nut"}, Path("labels.json"), POINTS)
DOUBTS = {one.check: one.doubts for one in THOROUGH_CHECKS}
SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


def record(*annotations: Annotation) -> Record:
    return Record(1, Path("a.png"), 100, 80, annotations)


def codes(check: LabelCheck, *annotations: Annotation) -> tuple[list[tuple[str, int | str | None]], list[int | str]]:
    """(code, annotation) of each finding, and the ids that are left."""
    mended, findings = check(record(*annotations), LABELS)
    if findings and check in LABEL_CHECKS:  # then one look must not have told that there is nothing
        assert checked(record(*annotations), LABELS.categories, LABELS.path, points=LABELS.points)[1]
    if check in DOUBTS:  # neither must a look at several, among others and when they have not been looked at yet
        sound = Annotation(1, 1, (10, 10, 30, 30), SQUARE)
        some = [record(sound), record(*annotations), record(), record(sound)]
        for records in (some, list(Dataset.of(some, dict(LABELS.categories)))):
            doubts = DOUBTS[check](many(records, {1: 0, 2: 1})).tolist()
            assert doubts[1] or not findings
            assert doubts[::2] == [False, False]
            assert not doubts[3]
    return [(finding.kind.code, finding.annotation) for finding in findings], [a.id for a in mended.annotations]


def mask(x1: int, y1: int, x2: int, y2: int) -> Mask:
    return Mask.from_crop(np.ones((y2 - y1, x2 - x1)), (y1, x1), (80, 100))


@pytest.mark.parametrize(
    ("box", "shape", "code", "left"),
    [
        ((5, 5, 6, 6), None, "box-one-pixel", False),
        ((5, 5, 5.5, 5.5), None, "box-one-pixel", False),
        ((5, 5, 6, 6), SQUARE, None, True),
        ((5, 5, 6, 9), None, None, True),
        ((5, 5, 5.9, 9), None, "box-thin", True),
        ((5, 5, 9, 5.5), SQUARE, "box-thin", True),
        ((0.1 + 0.2, 5, 1.1 + 0.2, 6), None, "box-one-pixel", False),
    ],
)
def test_small_boxes(box: tuple[float, float, float, float], shape: list, code: str | None, left: bool) -> None:
    found, kept = codes(box_small, Annotation(7, 1, box, shape))
    assert found == ([(code, 7)] if code else [])
    assert bool(kept) == left


def test_an_object_twice() -> None:
    one = Annotation(1, 1, (10, 10, 30, 30), SQUARE)
    assert codes(box_twice, one, replace(one, id=2)) == ([("box-twice", 2)], [1])
    assert codes(box_twice, one, replace(one, id=2, segmentation=Polygons(str(SQUARE)))) == ([("box-twice", 2)], [1])
    assert codes(box_twice, one, replace(one, id=2, segmentation=None))[0] == [("box-twice", 2)]
    rounded = replace(one, id=2, box=(10.01, 10, 30, 29.99))
    assert codes(box_twice, one, rounded) == ([("box-twice", 2)], [1])
    for other in (
        replace(one, id=2, category_id=2),
        replace(one, id=2, box=(10, 10, 30, 31)),
        replace(one, id=2, crowd=True),
        replace(one, id=2, segmentation=mask(10, 10, 30, 29)),
    ):
        assert codes(box_twice, one, other) == ([], [1, 2])


@pytest.mark.parametrize(
    ("box", "shape", "code"),
    [
        ((10, 10, 30, 30), SQUARE, None),
        ((10, 10, 30, 30), Polygons(str(SQUARE)), None),
        ((10, 10, 30, 30), mask(10, 10, 30, 30), None),
        ((10, 10, 30, 30), mask(10, 10, 30, 30).to_coco(), None),
        ((11, 12, 31, 32), SQUARE, None),
        ((14, 10, 30, 30), SQUARE, "mask-off-box"),
        ((0, 0, 90, 80), SQUARE, "mask-off-box"),
        ((10, 10, 30, 30), [SQUARE[0], [20, 20, 60, 20, 60, 40]], "mask-off-box"),
        ((30, 10, 50, 30), SQUARE, "mask-elsewhere"),
        ((60, 50, 80, 70), mask(10, 10, 30, 30), "mask-elsewhere"),
        ((10, 10, 30, 30), mask(0, 0, 0, 0), "mask-empty"),
        ((10, 10, 30, 30), [[10.2, 10.2, 10.3, 10.2, 10.3, 10.3]], "mask-empty"),
        ((10, 10, 30, 30), None, None),
        ((80, 60, 100, 80), [[80.0, 60.0, 140.0, 60.0, 140.0, 120.0, 80.0, 120.0]], None),  # beyond the picture
    ],
)
def test_masks_and_their_boxes(box: tuple[float, float, float, float], shape: object, code: str | None) -> None:
    annotation = Annotation(7, 1, box, shape)  # type: ignore[arg-type]
    mended, findings = mask_in_box(record(annotation), LABELS)
    codes(mask_in_box, annotation)
    assert [finding.kind.code for finding in findings] == ([code] if code else [])
    assert (mended.annotations[0].segmentation is None) == (code == "mask-elsewhere" or shape is None)
    assert mask_in_box(record(replace(annotation, crowd=True)), LABELS)[1] == ()


@pytest.mark.parametrize(
    ("points", "found", "left"),
    [
        (((10, 10, 2), (0, 0, 0), (30, 30, 1)), None, 3),
        (((10, 10, 2), (0, 0, 0)), "keypoint-count", 0),
        (((10, 10, 2),) * 4, "keypoint-count", 0),
        ((), "keypoint-count", 0),
        (((0, 0, 2), (12, 12, 2), (0, 0, 0)), "keypoint-at-origin", 1),
        (((12, 12, 2), (100.9, 12, 2), (12, -0.9, 2)), None, 3),  # up to a pixel outside
        (((12, 12, 2), (101.1, 12, 2), (12, -1.1, 2)), "keypoint-outside", 1),
        (((12, 12, 2), (101.1, 12, 1), (12, -30, 0)), None, 3),  # hidden, or not there
    ],
)
def test_keypoints_are_as_many_as_named_and_on_the_picture(points, found, left) -> None:
    annotation = Annotation(7, 2, (10, 10, 30, 30), keypoints=points)
    code, _ = codes(keypoint_count, annotation)
    code += codes(keypoint_outside, annotation)[0] if not code else []
    assert code == ([(found, 7)] if found else [])
    mended, findings = checked(record(annotation), LABELS.categories, LABELS.path, points=POINTS)
    assert [finding.kind.code for finding in findings] == ([found] if found else [])
    kept = mended.annotations[0].keypoints
    assert sum(seen > 0 for _, _, seen in kept or ()) == (left if found else sum(v > 0 for *_, v in points))
    assert (kept is None) == (found == "keypoint-count")
    assert not checked(mended, LABELS.categories, LABELS.path, points=POINTS)[1]
    # Of a category whose keypoints have no names nobody knows how many there should be.
    assert codes(keypoint_count, replace(annotation, category_id=1)) == ([], [7])


def test_a_keypoint_at_the_origin_may_belong_to_a_box_there() -> None:
    assert codes(keypoint_outside, Annotation(7, 2, (0, 0.5, 30, 30), keypoints=((0, 0, 2),) * 3)) == ([], [7])


def test_keypoints_far_from_their_box() -> None:
    one = Annotation(7, 2, (10, 10, 30, 50), keypoints=((10, 10, 2), (39.9, 30, 1), (0.1, 0.1, 2)))
    assert codes(keypoint_off_box, one) == ([], [7])
    far = replace(one, keypoints=((10, 10, 2), (40.1, 30, 1), (0.1, 0.1, 2)))
    assert codes(keypoint_off_box, far) == ([("keypoint-off-box", 7)], [7])
    for sound in (replace(far, crowd=True), replace(far, keypoints=((10, 10, 2), (40.1, 30, 0), (0.1, 0.1, 2)))):
        assert codes(keypoint_off_box, sound) == ([], [7])
    message = keypoint_off_box(record(far), LABELS)[1][0].message
    assert message == "keypoint 2 at (40.1, 30) lies 10.1 px outside the box (10, 10, 30, 50)"


def crossing(points: np.ndarray) -> tuple[float, float] | None:
    """Where it crosses itself, found among others."""
    square = np.array(SQUARE).reshape(4, 2)
    before, place, after = crossings(np.concatenate([square, points, square + 500]), np.array([4, len(points), 4]))
    assert before is after is None
    return place


def test_crossing_polygons() -> None:
    bow = np.array([[0, 0], [20, 20], [20, 0], [0, 20]], float)
    assert crossing(bow) == (10, 10)
    assert crossing(bow[[0, 2, 1, 3]]) is None
    angles = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    circle = np.stack((np.cos(angles), np.sin(angles)), 1) * 50
    assert crossing(circle) is None
    swapped = circle.copy()
    swapped[[300, 1400]] = swapped[[1400, 300]]
    assert crossing(swapped) is not None
    back_and_forth = np.array([[0, 0], [40, 0], [40, 40], [20, 40], [20, 20], [20, 40], [0, 40]], float)
    assert crossing(back_and_forth) is None
    shaky = np.array([[0, 0], [40, 0], [40, 40], [20, 40], [20.5, 41], [20.5, 39.5], [0, 40]], float)
    assert crossing(shaky) is None  # a loop of less than four square pixels
    assert crossing(bow[:3]) is None
    assert crossings(bow + 7, np.array([4]))[0] == (17, 17)
    found, _ = codes(polygon_crossing, Annotation(1, 1, (0, 0, 20, 20), [SQUARE[0], (bow + 7).ravel().tolist()]))
    assert found == [("polygon-crossing", 1)]


def test_crossing_agrees_with_every_pair_of_edges() -> None:
    """Against a plain double loop, which finds out by orientation whether two edges cross."""
    rng = np.random.default_rng(0)

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    results = set()
    for _ in range(60):
        n = int(rng.integers(4, 12))
        angles = np.sort(rng.uniform(0, 2 * np.pi, n))
        points = np.stack((np.cos(angles), np.sin(angles)), 1) * rng.uniform(60, 200, (n, 1))
        if rng.random() < 0.5:
            points = points[rng.permutation(n)]
        ends = np.roll(points, -1, 0)
        crosses = any(
            side(points[i], ends[i], points[j]) * side(points[i], ends[i], ends[j]) < 0
            and side(points[j], ends[j], points[i]) * side(points[j], ends[j], ends[i]) < 0
            for i in range(n)
            for j in range(i)
        )
        found = crossing(points) is not None
        assert found <= crosses  # what is found is there; what is there may be too small to matter
        results.add((found, crosses))
    assert {(True, True), (False, False)} <= results


def test_boxes_that_lie_on_each_other() -> None:
    one = Annotation(1, 1, (10, 10, 30, 30))
    near, half, other = (
        replace(one, id=2, box=(11, 10, 31, 30)),
        replace(one, id=3, box=(18, 10, 38, 30)),
        replace(one, id=4, category_id=2),
    )
    assert codes(box_alike, one, near, other) == ([("box-nearly-twice", 2)], [1, 4])
    assert codes(box_alike, near, one) == ([("box-nearly-twice", 1)], [2])
    assert codes(box_alike, one, half) == ([("box-overlap", 3)], [1, 3])
    assert codes(box_alike, one, replace(near, crowd=True)) == ([], [1, 2])
    apart = replace(one, segmentation=mask(10, 10, 30, 19)), replace(near, segmentation=mask(11, 20, 31, 30))
    assert codes(box_alike, *apart) == ([], [1, 2])  # two objects in one box, as their masks say
    alike = replace(one, segmentation=SQUARE), replace(near, segmentation=mask(11, 10, 31, 30))
    assert codes(box_alike, *alike)[0] == [("box-nearly-twice", 2)]


def test_many_boxes_are_compared_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 60, (60, 2))
    objects = [Annotation(i, 1, (x, y, x + 20, y + 20)) for i, (x, y) in enumerate(corners.tolist())]
    whole = codes(box_alike, *objects)
    assert whole[0]
    monkeypatch.setattr("tracesight.data.checks.box_alike._BLOCK", 7)
    assert sorted(codes(box_alike, *objects)[0]) == sorted(whole[0])


def test_what_was_done_is_told() -> None:
    inverted = Annotation(3, 1, (30, 10, 10, 30), SQUARE, keypoints=((1.0, 2.0, 2),))
    outside = Annotation(4, 1, (90, 10, 120, 30))
    unknown = Annotation(5, 9, (1, 1, 9, 9))
    mended, findings = checked(record(inverted, outside, unknown), LABELS.categories, LABELS.path)
    assert [a.box for a in mended.annotations] == [(10, 10, 30, 30), (90, 10, 100, 30)]
    changes = {finding.kind.code: finding.change for finding in findings}
    assert set(changes) == {"box-inverted", "box-outside", "category-unknown"}
    swapped, removed = changes["box-inverted"], changes["category-unknown"]
    assert swapped is not None
    assert (swapped.before, swapped.after) == ({"box": [30, 10, 10, 30]}, {"box": [10, 10, 30, 30]})
    assert removed is not None
    assert (removed.before["category_id"], removed.after) == (9, None)


def test_sound_labels_come_back_as_they_are() -> None:
    sound = record(Annotation(1, 1, (10, 10, 30, 30), SQUARE), Annotation(2, 2, (50, 10, 70, 40), mask(50, 10, 70, 40)))
    for check in (*LABEL_CHECKS, *DOUBTS):
        mended, findings = check(sound, LABELS)
        assert mended is sound
        assert not findings
