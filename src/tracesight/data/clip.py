"""Polygons that reach further than any picture: cut off, since a rasteriser walks along every pixel of their edges."""

from __future__ import annotations

from collections.abc import Sequence

_FAR = 16.0  # times width and height together: within it nothing is touched
_FARTHEST = 1e12  # beyond it differences are lost in rounding; no picture is so large


def within_reach(part: Sequence[float], height: int, width: int) -> list[float]:
    """A polygon [x, y, x, y, …] that fills to the same pixels of a picture and stays in reach of it.

    [] where nothing of it does. What is in reach as it is comes back as it is.
    """
    far = _FAR * (width + height)
    if not part or (-far <= min(part) and max(part) <= far):
        return [float(v) for v in part]
    values = [min(max(float(v), -_FARTHEST), _FARTHEST) for v in part]
    points = list(zip(values[0::2], values[1::2]))
    for axis in (0, 1):  # Sutherland and Hodgman, "Reentrant Polygon Clipping" (1974), one edge of a square at a time
        for sign in (-1.0, 1.0):
            points = _cut(points, axis, sign, far)
    return [v for point in points for v in point]


def _cut(points: list[tuple[float, float]], axis: int, sign: float, far: float) -> list[tuple[float, float]]:
    """What lies where `sign` times the coordinate is at most `far`."""
    kept: list[tuple[float, float]] = []
    for before, point in zip([*points[-1:], *points[:-1]], points):
        depth, last = far - sign * point[axis], far - sign * before[axis]
        if (depth >= 0) != (last >= 0):
            share = last / (last - depth)
            crossing = [b + share * (p - b) for b, p in zip(before, point)]
            crossing[axis] = sign * far
            kept.append((crossing[0], crossing[1]))
        if depth >= 0:
            kept.append(point)
    return kept
