"""Polygons whose outline crosses itself, so that nobody knows what is inside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tracesight.data.checks.label_check import Found, Labels, Verdict, each, polygons
from tracesight.data.checks.many import Many
from tracesight.data.finding import Kind
from tracesight.data.record import Annotation, Record
from tracesight.scene.mask import Mask

KIND = Kind("polygon-crossing", "warning", "polygons that cross themselves", "draw it anew: what is inside is unclear")
AREA, SHARE = 4.0, 0.02  # square pixels of the smaller loop, and its share of the other, that matter
_PAIRS = 1 << 18  # of edges looked at at a time, about 30 MB
_FARTHEST = 1e9  # pixels; what is said to lie beyond would overflow
_FAR = 1e5  # pixels; what lies beyond would cost the polygons beside it digits


def polygon_crossing(record: Record, labels: Labels) -> Found:
    """A polygon with two edges that truly cross. Edges that touch or run along each other do not count."""
    shaped = [a for a in record.annotations if not isinstance(a.segmentation, Mask | None) and not a.ignored]
    drawn = [(a, part) for a in shaped for part in polygons(a) or ()]
    if not drawn:
        return record, ()
    outlines = [np.asarray(part, np.float64).reshape(-1, 2) for _, part in drawn]
    places = crossings(np.concatenate(outlines), np.array([len(points) for points in outlines]))
    crossed = {id(annotation): place for (annotation, _), place in zip(drawn, places) if place is not None}
    if not crossed:
        return record, ()

    def judge(annotation: Annotation) -> Verdict | None:
        if id(annotation) not in crossed:
            return None
        x, y = crossed[id(annotation)]
        return KIND, f"its polygon crosses itself at ({x:.4g}, {y:.4g})", annotation

    return each(record, labels, judge)


def polygon_crossing_doubts(many: Many) -> np.ndarray:
    """See `Thorough`."""
    outlines = many.outlines
    doubtful = np.zeros(len(many.counts), np.bool_)
    if not outlines.counts.size:
        return doubtful
    if not np.abs(outlines.points).max() < _FAR:
        return ~doubtful
    places = crossings(outlines.points, outlines.counts)
    crossed = np.array([place is not None for place in places])
    doubtful[many.record[outlines.owner[crossed]]] = True
    return doubtful


def crossings(points: np.ndarray, counts: np.ndarray) -> list[tuple[float, float] | None]:
    """Where each of some closed polygons crosses itself, at one place; None where it does not.

    points (n, 2): of one after the other. counts: of the points of each.

    A loop that is cut off so has to have an area that matters: shaking hands make tiny ones. The edges of all polygons
    are sorted from left to right and each is compared with those of its own that begin before it ends, so that the time
    grows little faster than their number.
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    first = counts.cumsum() - counts
    points = points.clip(-_FARTHEST, _FARTHEST)
    origin = points[first]
    points = points - origin[owner]  # differences of large numbers would lose digits
    following = np.arange(1, len(points) + 1)
    following[first + counts - 1] = first
    ends = points[following]
    low, high = np.minimum(points, ends), np.maximum(points, ends)
    # Polygons one after the other on one line.
    shift = owner * (high[:, 0].max() - low[:, 0].min() + 1)
    order = (low[:, 0] + shift).argsort(kind="stable")
    starts = (low[:, 0] + shift)[order]
    behind = np.searchsorted(starts, (high[:, 0] + shift)[order], side="left") - np.arange(1, order.size + 1)
    outlines = _Outlines(points, ends, owner, first, counts)
    result: list[tuple[float, float] | None] = [None] * len(counts)
    for i, j in _pairs(np.maximum(behind, 0)):
        i, j = order[i], order[j]
        near = (low[j, 1] < high[i, 1]) & (low[i, 1] < high[j, 1])
        at, place = _crossed(outlines, i[near], j[near])
        for number, (x, y) in zip(at.tolist(), (place + origin[at]).tolist()):
            result[number] = result[number] or (x, y)
    return result


class _Outlines(NamedTuple):
    """The edges of all polygons: from `points` to `ends`, both (n, 2); whose they are; and of each polygon the first
    edge and how many it has."""

    points: np.ndarray
    ends: np.ndarray
    owner: np.ndarray
    first: np.ndarray
    counts: np.ndarray


def _pairs(behind: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each position with every one of the `behind` that follow it, some `_PAIRS` at a time."""
    stops, first, done = behind.cumsum(), 0, 0
    while first < len(behind):
        last = max(first + 1, int(np.searchsorted(stops, done + _PAIRS, side="right")))
        some = behind[first:last]
        i = np.repeat(np.arange(first, last), some)
        yield i, i + 1 + np.arange(i.size) - np.repeat(some.cumsum() - some, some)
        first, done = last, int(stops[last - 1])


def _crossed(outlines: _Outlines, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the edges i and j beside them: (polygon, point) of those that cross inside both and cut off what matters."""
    points, ends, owner, first, counts = outlines
    i, j = np.minimum(i, j), np.maximum(i, j)
    for _ in range(2):  # the ends of the one edge on both sides of the other, and the other way round
        p, q = points[j], ends[j]
        apart = _side(p, q, points[i]) * _side(p, q, ends[i]) < 0
        i, j = j[apart], i[apart]
    a, b, c, d = points[i], ends[i], points[j], ends[j]
    truly = np.logical_and.reduce([_beside(c, d, a), _beside(c, d, b), _beside(a, b, c), _beside(a, b, d)])
    i, j = i[truly], j[truly]
    if not i.size:
        return np.zeros(0, np.int64), np.zeros((0, 2))
    from_a, from_b = (_side(points[j], ends[j], of) for of in (points[i], ends[i]))
    at = points[i] + (ends[i] - points[i]) * (from_a / (from_a - from_b))[:, None]
    # Twice the signed area of the loop from the crossing along the edges between i and j and back, and of the whole.
    sums = np.concatenate(([0.0], _cross(points, ends).cumsum()))
    loop = sums[j] - sums[i + 1] + _cross(points[j], at) + _cross(at, ends[i])
    whole = sums[(first + counts)[owner[i]]] - sums[first[owner[i]]]
    smaller, larger = np.minimum(np.abs(loop), np.abs(whole - loop)), np.maximum(np.abs(loop), np.abs(whole - loop))
    matters = smaller / 2 >= np.maximum(AREA, SHARE * larger / 2)
    return owner[i][matters], at[matters]


def _cross(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]


def _side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Above 0 where r lies on the one side of p–q, below on the other, and 0 on it but for rounding (`_beside`)."""
    return (q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0])


def _beside(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Whether r does not lie on p–q, as far as rounding tells."""
    return np.abs(_side(p, q, r)) > 1e-9 * np.abs(q - p).sum(1) * np.abs(r - p).sum(1)
