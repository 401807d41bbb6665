"""Masks as run lengths, and the only codec for the strings that COCO stores them in.

A mask is read down its columns, from the left column to the right one; `runs` are the lengths of alternating
stretches of background and object, background first (its first length may be 0).
COCO's compressed form (`counts`) writes each length, from the fourth on less the one two before it, as groups of five
bits, least significant first: bit 0x20 says that another group follows, 48 is added to make the group printable.
Source: `common/maskApi.c` of https://github.com/cocodataset/cocoapi.

Letters: H, W height and width of the picture; h, w of a crop; n runs. Pixels, origin top left, half-open boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Runs = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_GROUP_BITS = 5
_SIGN_BIT = 0x10
_MORE_BIT = 0x20
_FIRST_CHARACTER = 48
_LONGEST_NUMBER = 12  # groups of five bits that fit an int64
_EDGES_AT_A_TIME = 1 << 15


@dataclass(frozen=True, slots=True)
class Mask:
    """The pixels of one object: `size` is (height, width) of its picture, `counts` COCO's compressed run lengths.

    Two masks are equal exactly when their pixels are: lengths of zero that other writers leave inside are merged.

    Raises ValueError when `size` is not two whole numbers from 0 up, or `counts` is not a run-length string whose
    lengths add up to height × width.
    """

    size: tuple[int, int]
    counts: bytes

    def __post_init__(self) -> None:
        height, width = _checked_size(self.size)
        object.__setattr__(self, "size", (height, width))
        if not isinstance(self.counts, bytes):
            raise ValueError(f"mask counts must be bytes, not {type(self.counts).__name__}")
        runs = _decode(self.counts)
        _check_runs(runs, height, width)
        runs = _merged(runs)
        object.__setattr__(self, "counts", _encode(runs, np.array([runs.size]))[0])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without checking again, and several times faster than a frozen dataclass with slots is by itself."""
        return Mask.trusted, (self.counts, self.size)

    # ---- made from

    @classmethod
    def from_array(cls, array: ArrayLike) -> Mask:
        """Mask of an (H, W) array of booleans, or of zeros and anything else."""
        pixels = _as_bool(array, "a mask")
        height, width = pixels.shape
        columns = np.flatnonzero(pixels.any(axis=0))
        if columns.size == 0:
            return cls._from_runs(np.array([height * width], np.int64), (height, width))
        left, right = int(columns[0]), int(columns[-1]) + 1
        rows = np.flatnonzero(pixels[:, left:right].any(axis=1))
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        return cls.from_crop(pixels[top:bottom, left:right], (top, left), (height, width))

    @classmethod
    def from_crop(cls, crop: ArrayLike, origin: tuple[int, int], size: tuple[int, int]) -> Mask:
        """Mask of an (h, w) crop whose top left pixel is `origin` (y, x) in a picture of `size` (H, W).

        What hangs over the edge of the picture is cut off. Time and memory grow with the crop, not with the picture.
        """
        height, width = _checked_size(size)
        pixels = _as_bool(crop, "a crop")
        top, left = int(origin[0]), int(origin[1])
        pixels = pixels[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
        top, left = max(0, top), max(0, left)
        h, w = pixels.shape
        padded = np.zeros((w, h + 2), np.bool_)
        padded[:, 1:-1] = pixels.T
        changes = np.flatnonzero(padded[:, 1:] != padded[:, :-1])  # in each column: start, end, start, end, …
        column, row = np.divmod(changes, h + 1)
        positions = (column + left) * height + row + top
        if h == height and positions.size:  # the foot of one column is the head of the next: no stretch between them
            positions = _without_empty_gaps(positions)
        runs = np.diff(positions, prepend=0, append=height * width)
        return cls._from_runs(_merged(runs), (height, width))

    @classmethod
    def from_edges(cls, edges: ArrayLike, counts: ArrayLike, size: tuple[int, int]) -> list[Mask]:
        """Masks of one picture of `size` (H, W), all at once, from where their stretches of pixels begin and end.

        edges (E,): positions 0 to H × W, counted down the columns, as start, end, start, end, … of one mask after the
        other, each mask's rising without a repetition; counts (m,): how many edges each mask has. `ops.paste.mask_runs`
        gives both. Raises ValueError when they are not like that.
        """
        size = _checked_size(size)
        total = size[0] * size[1]
        edges, counts = np.asarray(edges, np.int64), np.asarray(counts, np.int64)
        _check_edges(edges, counts, total)
        if counts.size == 0:
            return []
        stops = counts.cumsum()
        # A few masks at a time, so that what is worked on stays in a cache.
        cuts = np.flatnonzero(np.diff((stops - counts) // _EDGES_AT_A_TIME)) + 1
        texts: list[bytes] = []
        for first, last in pairwise([0, *cuts.tolist(), counts.size]):
            part = counts[first:last]
            of_part = edges[stops[first] - counts[first] : stops[last - 1]]
            texts.extend(_encode(*_runs_of_edges(of_part, part, total)))
        return [cls.trusted(text, size) for text in texts]

    @classmethod
    def from_coco(cls, value: Mapping[str, Any]) -> Mask:
        """Mask of COCO's {"size": [H, W], "counts": …}: `counts` a compressed str or bytes, or a list of run lengths.

        Raises ValueError that says what is wrong.
        """
        if not isinstance(value, Mapping) or "size" not in value or "counts" not in value:
            raise ValueError('a run-length mask must have the keys "size" and "counts"')
        size, counts = _checked_size(value["size"]), value["counts"]
        if isinstance(counts, str):
            try:
                counts = counts.encode("ascii")
            except UnicodeEncodeError:
                raise ValueError("mask counts hold a character that run-length strings do not have") from None
        if isinstance(counts, bytes):
            return cls(size, counts)
        runs = _runs_of_list(counts)
        _check_runs(runs, *size)
        return cls._from_runs(_merged(runs), size)

    @classmethod
    def _from_runs(cls, runs: Runs, size: tuple[int, int]) -> Mask:
        """Mask of canonical runs."""
        return cls.trusted(_encode(runs, np.array([runs.size]))[0], size)

    @classmethod
    def trusted(cls, counts: bytes, size: tuple[int, int]) -> Mask:
        """Mask of a string that this module has just made, and does not check again."""
        mask = object.__new__(cls)
        object.__setattr__(mask, "size", size)
        object.__setattr__(mask, "counts", counts)
        return mask

    # ---- turned into

    def to_array(self) -> BoolArray:
        """The mask as an (H, W) array, as large as the picture."""
        array = np.zeros(self.size, np.bool_)
        crop, (top, left) = self.to_crop()
        array[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        return array

    def to_crop(self) -> tuple[BoolArray, tuple[int, int]]:
        """The smallest (h, w) crop that holds the object, and the (y, x) of its top left pixel.

        An empty mask gives a crop of shape (0, 0) at (0, 0).
        """
        starts, ends = self._stretches()
        if starts.size == 0:
            return np.zeros((0, 0), np.bool_), (0, 0)
        left, top, right, bottom = _extent(starts, ends, self.size[0])
        h, w, height = bottom - top, right - left, self.size[0]
        # A stretch that goes on in the next column fills whole columns: then h is H, and the shift is right for it too.
        first, last = np.divmod(starts, height), np.divmod(ends - 1, height)
        edges = np.empty(2 * starts.size, np.int64)
        edges[0::2] = (first[0] - left) * h + first[1] - top
        edges[1::2] = (last[0] - left) * h + last[1] - top + 1
        runs = np.diff(edges, prepend=0, append=h * w)
        return np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(w, h).T, (top, left)

    def to_coco(self) -> dict[str, Any]:
        """{"size": [H, W], "counts": str}, ready for JSON."""
        return {"size": list(self.size), "counts": self.counts.decode("ascii")}

    def to_runs(self) -> list[int]:
        """COCO's uncompressed counts: the run lengths, background first."""
        return _decode(self.counts).tolist()

    # ---- measured

    @property
    def area(self) -> int:
        """How many pixels the object has."""
        return int(_decode(self.counts)[1::2].sum())

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The tightest box (x1, y1, x2, y2), half-open; all zeros when the mask is empty."""
        starts, ends = self._stretches()
        if starts.size == 0:
            return (0.0, 0.0, 0.0, 0.0)
        left, top, right, bottom = _extent(starts, ends, self.size[0])
        return (float(left), float(top), float(right), float(bottom))

    def iou(self, other: Mask) -> float:
        """Intersection over union with a mask of the same picture, 0–1; 0 when both are empty.

        Raises ValueError when the pictures' sizes differ.
        """
        if self.size != other.size:
            raise ValueError(f"masks of pictures of different sizes: {self.size} and {other.size}")
        starts, ends = self._stretches()
        common = int((other._pixels_before(ends) - other._pixels_before(starts)).sum())
        union = int((ends - starts).sum()) + other.area - common
        return common / union if union else 0.0

    def _stretches(self) -> tuple[Runs, Runs]:
        """Where each stretch of object pixels starts and ends, counted down the columns."""
        edges = np.cumsum(_decode(self.counts))
        edges = edges[: edges.size // 2 * 2]
        return edges[0::2], edges[1::2]

    def _pixels_before(self, positions: Runs) -> Runs:
        """For each position counted down the columns: how many object pixels come before it."""
        runs = _decode(self.counts)
        edges = np.concatenate(([0], np.cumsum(runs)))
        is_object = np.arange(runs.size) % 2 == 1
        before = np.concatenate(([0], np.cumsum(np.where(is_object, runs, 0))))
        at = np.minimum(np.searchsorted(edges, positions, side="right") - 1, runs.size - 1)
        return before[at] + np.where(is_object[at], positions - edges[at], 0)


def _encode(runs: Runs, counts: Runs) -> list[bytes]:
    """COCO's strings of masks whose run lengths (n,) follow each other, `counts` (m,) of them, at least 1, a mask."""
    stops = counts.cumsum()
    starts = stops - counts
    values = runs.copy()
    values[2:] -= runs[:-2]
    whole = starts[:, None] + np.arange(3)  # written in full
    whole = whole[whole < stops[:, None]]
    values[whole] = runs[whole]
    # Groups that a number needs: five bits each, one of them the sign. `magnitude` folds -1 onto 0, -2 onto 1, …
    magnitude = np.where(values < 0, ~values, values)
    longest = -(-(int(magnitude.max()).bit_length() + 1) // _GROUP_BITS)
    lengths = np.ones(values.size, np.int64)
    for place in range(1, longest):
        lengths += magnitude >= 1 << (_GROUP_BITS * place - 1)
    ends = lengths.cumsum()
    characters = np.empty(int(ends[-1]), np.uint8)
    at = ends - lengths
    for place in range(longest):  # of all numbers at once, of which ever fewer go on
        more = lengths > place + 1
        characters[at] = (values & 0x1F) + more * _MORE_BIT + _FIRST_CHARACTER
        going = np.flatnonzero(more)
        at, values, lengths = at[going] + 1, values[going] >> _GROUP_BITS, lengths[going]
    text = characters.tobytes()
    cuts = [0, *ends[stops - 1].tolist()]
    return [text[start:stop] for start, stop in pairwise(cuts)]


def _decode(counts: bytes) -> Runs:
    """The run lengths (n,) of COCO's string. Raises ValueError when it is none."""
    if not counts:
        raise ValueError("mask counts are empty")
    groups = np.frombuffer(counts, np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if groups.min() < 0 or groups.max() > 0x3F:
        raise ValueError("mask counts hold a character that run-length strings do not have")
    ends = np.flatnonzero(groups < _MORE_BIT)
    if ends.size == 0 or ends[-1] != groups.size - 1:
        raise ValueError("mask counts break off in the middle of a number")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST_NUMBER:
        raise ValueError("mask counts hold a number that is too large")
    place = np.arange(groups.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((groups & 0x1F) << (_GROUP_BITS * place), starts)
    negative = (groups[ends] & _SIGN_BIT) > 0
    values -= negative * (np.int64(1) << (_GROUP_BITS * lengths))
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])  # the third length is written in full, so the first does not count here
    return runs


def _merged(runs: Runs) -> Runs:
    """The same pixels without stretches of length 0, except that the first one may have it."""
    if runs.size == 1 or bool((runs[1:] > 0).all()):
        return runs
    edges = np.cumsum(runs)
    # A position that is an edge twice is none; the last edge is the picture's end and comes back as the remainder.
    positions, times = np.unique(edges[:-1], return_counts=True)
    positions = positions[times % 2 == 1]
    return np.diff(positions[positions < edges[-1]], prepend=0, append=edges[-1])


def _without_empty_gaps(positions: Runs) -> Runs:
    """Edges (2n,) of n stretches, less those between stretches that touch."""
    keep = np.ones(positions.size, np.bool_)
    touching = positions[1:-1:2] == positions[2::2]
    keep[1:-1:2] = ~touching
    keep[2::2] = ~touching
    return positions[keep]


def _runs_of_edges(edges: Runs, counts: Runs, total: int) -> tuple[Runs, Runs]:
    """Run lengths of masks whose edges follow each other, `counts` (m,) a mask, and how many runs each mask has."""
    # The picture's end closes the last run, which is not there when the object reaches it.
    stops = counts.cumsum()
    closed = np.ones(counts.size, np.bool_)
    some = counts > 0
    closed[some] = edges[stops[some] - 1] < total
    ends = np.insert(edges, stops[closed], total)
    numbers = counts + closed
    starts = numbers.cumsum() - numbers
    runs = np.diff(ends, prepend=0)
    runs[starts] = ends[starts]
    return runs, numbers


def _extent(starts: Runs, ends: Runs, height: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of stretches (n > 0,) in columns of `height` pixels."""
    first, last = starts // height, (ends - 1) // height
    left, right = int(first[0]), int(last[-1]) + 1
    if bool((first != last).any()):  # a stretch that goes on in the next column touches the foot and the head
        return left, 0, right, height
    return left, int((starts - first * height).min()), right, int((ends - first * height).max())


def _check_runs(runs: Runs, height: int, width: int) -> None:
    if runs.size == 0 or int(runs.min()) < 0:
        raise ValueError("mask counts hold a negative run length" if runs.size else "mask counts are empty")
    total = height * width
    covered = int(runs.sum()) if int(runs.max()) * runs.size < 2**63 else sum(runs.tolist())
    if covered != total:
        raise ValueError(f"mask counts cover {covered} pixels, but the picture has {height} × {width} = {total}")


def _check_edges(edges: Runs, counts: Runs, total: int) -> None:
    if edges.ndim != 1 or counts.ndim != 1 or int(counts.sum()) != edges.size:
        raise ValueError(f"{edges.size} edges, but the masks' counts of them add up to {int(counts.sum())}")
    if (counts < 0).any() or (counts % 2).any():
        raise ValueError("a mask must have as many starts as ends")
    if edges.size and not (int(edges.min()) >= 0 and int(edges.max()) <= total):
        raise ValueError(f"edges must lie between 0 and {total}, the number of pixels")
    rising = edges[1:] > edges[:-1]
    begins = counts.cumsum()[:-1]
    rising[begins[(begins > 0) & (begins < edges.size)] - 1] = True  # from one mask to the next
    if not rising.all():
        raise ValueError("the edges of a mask must rise, without a repetition")


def _checked_size(size: Any) -> tuple[int, int]:
    try:
        height, width = size
    except (TypeError, ValueError):
        raise ValueError(f"mask size must be two whole numbers (height, width), not {size!r}") from None
    for side in (height, width):
        if isinstance(side, bool) or not isinstance(side, int | np.integer) or not 0 <= side < 2**31:
            raise ValueError(f"mask size must be two whole numbers (height, width), not {size!r}")
    return int(height), int(width)


def _runs_of_list(counts: Any) -> Runs:
    """Uncompressed run lengths. Raises ValueError when they are not whole numbers."""
    try:
        runs = np.asarray(counts)
    except (ValueError, OverflowError):
        runs = np.asarray(["?"])
    if runs.ndim != 1 or (runs.size and runs.dtype.kind not in "iu") or isinstance(counts, dict):
        raise ValueError("mask counts must be a run-length string or a list of whole numbers")
    return runs.astype(np.int64)


def _as_bool(array: ArrayLike, what: str) -> BoolArray:
    pixels = np.asarray(array)
    if pixels.ndim != 2:
        raise ValueError(f"{what} must be an array (height, width), not one of shape {pixels.shape}")
    return pixels if pixels.dtype == np.bool_ else pixels != 0
