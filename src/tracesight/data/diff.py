"""What differs between two states of labelled pictures, whatever formats they are in: pictures, categories, objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tracesight.data.dataset import Dataset
from tracesight.data.formats.places import ALL
from tracesight.data.record import Annotation, Box, Record
from tracesight.lineage import manifest
from tracesight.lineage.compare import Change, Place, category_changes, pairs_of, picture_changes, renames

TOLERANCE = 0.5  # pixels that a corner may lie elsewhere, which is what formats round to
MASK_IOU = 0.99  # what masks must share to count as the same
_SAME_ID = 0.1  # IoU from which the same id means the same object: ids of another format may be anything
_SAME_PLACE = 0.5  # IoU from which two objects are taken for the same one


@dataclass(frozen=True)
class Difference:
    """changes: in the order of pictures. same: pictures of which nothing changed. notes: what is no difference."""

    changes: list[Change]
    same: int
    notes: list[str]


def compare(
    before: Mapping[str, Dataset],
    after: Mapping[str, Dataset],
    tolerance: float = TOLERANCE,
    called: Callable[[str], str] = str,
) -> Difference:
    """Compare two data folders by their sets.

    Pictures are the same by content, else by split and name. Objects are the same where class and box agree, else by
    id, else where they overlap by half. tolerance: pixels that boxes and keypoints may lie apart. called: what to call
    an annotator. Raises UserError: a picture that cannot be read.
    """
    (was, old_record), (now, new_record) = _places(before), _places(after)
    tables = [{i: n for dataset in sets.values() for i, n in dataset.categories.items()} for sets in (before, after)]
    old, new = tables
    new_names = {old[number]: name for number, name in renames(old, new).items()}
    pairs = pairs_of(was, now)
    changes = [*category_changes(old, new), *picture_changes(was, now, pairs)]
    touched = {change.name for change in changes if change.what == "picture"}
    same = 0
    for i, j in pairs:
        if i is None or j is None:
            continue
        name = str(now[j])
        looked = _Pair(old_record(i), new_record(j), name, tables, new_names, tolerance, called)
        found = [*_of_picture(looked), *_of_objects(looked)]
        same += not found and name not in touched
        changes += found
    numbers = {name: number for number, name in new.items()}
    moved = [name for i, name in old.items() if numbers.get(new_names.get(name, name), i) != i]
    notes = [f"{len(moved)} categories have other ids, among them {moved[0]}"] if moved else []
    return Difference(changes, same, notes)


def pictures_root(sets: Mapping[str, Dataset]) -> bytes:
    """The root of pictures that a manifest would have."""
    digests = (digest for dataset in sets.values() for digest in dataset.picture_digests)
    return bytes.fromhex(manifest.pictures_root(digests))


@dataclass(frozen=True)
class _Pair:
    """A picture then and now."""

    before: Record
    after: Record
    name: str
    tables: list[dict[int, str]]
    new_names: dict[str, str]
    tolerance: float
    called: Callable[[str], str]

    def names(self, side: int, numbers: Iterable[int]) -> list[str]:
        """What categories are called now."""
        found = [self.tables[side].get(number, f"category {number}") for number in numbers]
        return [self.new_names.get(name, name) for name in found] if side == 0 else found

    def change(self, what: str, how: str, about: str, a: Annotation | None = None) -> Change:
        by = None if a is None or a.annotator is None else self.called(a.annotator)
        return Change(what, how, self.name, about, by, None if a is None else a.time)


def _places(sets: Mapping[str, Dataset]) -> tuple[list[Place], Callable[[int], Record]]:
    """Where every picture is, and how to get at its record."""
    where = [(name, dataset, at) for name, dataset in sets.items() for at in range(len(dataset))]
    places = [
        Place(None if split == ALL else split, record.name, digest)
        for split, dataset in sets.items()
        for record, digest in zip(dataset, dataset.picture_digests)
    ]
    return places, lambda position: where[position][1][where[position][2]]


def _of_picture(pair: _Pair) -> Iterator[Change]:
    old, new = pair.before, pair.after
    labels = set(pair.names(0, old.labels)), set(pair.names(1, new.labels))
    yield from (pair.change("label", "removed", name) for name in sorted(labels[0] - labels[1]))
    yield from (pair.change("label", "added", name) for name in sorted(labels[1] - labels[0]))
    for field in ("licence", "source", "sensor", "group"):
        was, now = getattr(old, field), getattr(new, field)
        if was is not None and now is not None and was != now:  # a format that has no place for it says nothing
            yield pair.change(field, "changed", f"was {was}, is {now}")


def _of_objects(pair: _Pair) -> Iterator[Change]:
    old, new = pair.before.annotations, pair.after.annotations
    names = pair.names(0, (a.category_id for a in old)), pair.names(1, (a.category_id for a in new))
    partners = _partners(old, new, *names, pair.tolerance)
    for i, a in enumerate(old):
        if i not in partners:
            yield pair.change("object", "removed", _who(names[0][i], a), a)
        else:
            j = partners[i]
            yield from _of_object(pair, a, new[j], names[0][i], names[1][j])
    kept = set(partners.values())
    yield from (pair.change("object", "added", _who(names[1][j], a), a) for j, a in enumerate(new) if j not in kept)


def _of_object(pair: _Pair, old: Annotation, new: Annotation, was: str, now: str) -> Iterator[Change]:
    who = _who(now, new)
    if was != now:
        yield pair.change("object", "relabelled", f"{who}: was {was}", new)
    far = _distance(old.box, new.box)
    if far > pair.tolerance:
        yield pair.change("box", "moved", f"{who}: was {_box(old.box)}, by up to {far:.1f} px", new)
    yield from _of_mask(pair, old, new, who)
    for flag in ("crowd", "difficult", "truncated"):
        if getattr(old, flag) != getattr(new, flag):
            yield pair.change(flag, "set" if getattr(new, flag) else "taken away", who, new)
    if (old.keypoints is None) != (new.keypoints is None):
        yield pair.change("keypoints", "added" if old.keypoints is None else "removed", who, new)
    elif old.keypoints is not None and new.keypoints is not None and _points_moved(old, new, pair.tolerance):
        yield pair.change("keypoints", "moved", who, new)
    if old.annotator is not None and new.annotator is not None and old.annotator != new.annotator:
        yield pair.change("annotator", "changed", f"{who}: was {pair.called(old.annotator)}", new)


def _of_mask(pair: _Pair, old: Annotation, new: Annotation, who: str) -> Iterator[Change]:
    if (old.segmentation is None) != (new.segmentation is None):
        yield pair.change("mask", "added" if old.segmentation is None else "removed", who, new)
        return
    if old.segmentation is None or old.segmentation == new.segmentation:
        return
    try:
        masks = old.mask(pair.before.height, pair.before.width), new.mask(pair.after.height, pair.after.width)
    except ValueError:
        masks = None, None
    if masks[0] is None or masks[1] is None or masks[0].size != masks[1].size:
        yield pair.change("mask", "changed", who, new)
    elif masks[0] != masks[1]:
        one, other = (mask.to_array() for mask in masks if mask is not None)
        either = np.count_nonzero(one | other)
        iou = np.count_nonzero(one & other) / either if either else 1.0
        if iou < MASK_IOU:
            yield pair.change("mask", "changed", f"{who}: IoU {iou:.2f}", new)


def _partners(
    old: tuple[Annotation, ...], new: tuple[Annotation, ...], was: list[str], now: list[str], tolerance: float
) -> dict[int, int]:
    """Which object of `new` is which of `old`."""
    if not old or not new:
        return {}
    one, other = (np.array([a.box for a in side], np.float64) for side in (old, new))
    far = np.abs(one[:, None] - other[None]).max(-1)
    same_name = np.array(was, object)[:, None] == np.array(now, object)[None]
    iou = _iou(one, other)
    numbers: dict[int | str, int] = {a.id: j for j, a in enumerate(new)}
    same_id = np.zeros(iou.shape, bool)
    for i, a in enumerate(old):
        if a.id in numbers:
            same_id[i, numbers[a.id]] = True
    partners: dict[int, int] = {}
    taken: set[int] = set()
    for allowed, cost in (
        (same_name & (far <= tolerance), far.round(3) + ~same_id * 1e-6),
        (same_id & (iou >= _SAME_ID), -iou),
        (same_name & (iou >= _SAME_PLACE), -iou),
        (iou >= _SAME_PLACE, -iou),
    ):
        rows, columns = np.nonzero(allowed)
        for at in np.argsort(cost[rows, columns], kind="stable"):
            i, j = int(rows[at]), int(columns[at])
            if i not in partners and j not in taken:
                partners[i] = j
                taken.add(j)
    return partners


def _iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of boxes (n, 4) and (m, 4): (n, m)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1) for boxes in (one, other)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)


def _points_moved(old: Annotation, new: Annotation, tolerance: float) -> bool:
    if old.keypoints is None or new.keypoints is None or len(old.keypoints) != len(new.keypoints):
        return True
    return any(
        a[2] != b[2] or (a[2] > 0 and max(abs(a[0] - b[0]), abs(a[1] - b[1])) > tolerance)
        for a, b in zip(old.keypoints, new.keypoints)
    )


def _distance(one: Box, other: Box) -> float:
    return max(abs(a - b) for a, b in zip(one, other))


def _box(box: Box) -> str:
    return "(" + ", ".join(f"{value + 0.0:g}" for value in np.round(box, 1)) + ")"


def _who(name: str, a: Annotation) -> str:
    return f"{name} {a.id} at {_box(a.box)}"
