"""Proposals in a file: boxes that may hold an object, made once for every picture, by whatever made them.

The file is safetensors: `boxes` (T, 4) float32 `xyxy`, in pixels of the picture after EXIF orientation, picture by
picture, best first; `offsets` (n + 1,) int64, where each picture's begin. Its metadata say `format`
"tracesight-proposals", `version` "1", `method` (what made them) and `pictures`, JSON: [name, SHA-256 of the file,
height, width] of each. A picture is known by its digest; the name is for people, and to say that one has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from tracesight.data.dataset import Dataset
from tracesight.errors import UserError

FORMAT, VERSION = "tracesight-proposals", "1"
REACH = 1.0  # pixels that a box may reach beyond its picture; it is cut off there

# (path of a picture, SHA-256 of its bytes, its pixels (H, W, C)) → boxes (p, 4) float32. Raises UserError.
Source = Callable[[Path, str, np.ndarray], np.ndarray]


class Row(NamedTuple):
    """The proposals of one picture: boxes (p, 4) in pixels of a picture of `size` (height, width), best first."""

    name: str
    sha256: str
    size: tuple[int, int]
    boxes: np.ndarray


@dataclass(frozen=True, eq=False)
class ProposalSet:
    """What a file of proposals holds; see above."""

    path: Path
    method: str
    boxes: np.ndarray
    offsets: np.ndarray
    pictures: tuple[tuple[str, str, int, int], ...]
    digest: str

    @cached_property
    def _row(self) -> dict[str, int]:
        return {sha256: row for row, (_, sha256, _, _) in enumerate(self.pictures)}

    @cached_property
    def _names(self) -> set[str]:
        return {PurePosixPath(name).name for name, *_ in self.pictures}

    def find(self, path: Path, sha256: str, pixels: np.ndarray | None = None) -> np.ndarray:
        """Boxes (p, 4) float32 of the picture with this digest; a `Source`. Raises UserError: it has none."""
        row = self._row.get(sha256)
        if row is None and path.name in self._names:
            raise UserError(f"{path}: is not the picture that {self.path} has proposals for; make them anew")
        if row is None:
            raise UserError(f"{path}: {self.path} has no proposals for it; make them: tracesight data propose")
        return self.boxes[self.offsets[row] : self.offsets[row + 1]]

    def of(self, dataset: Dataset) -> dict[Path, np.ndarray]:
        """Boxes (p, 4) of each picture of a set, by its path. Raises UserError: the first that has none."""
        return {record.path: self.find(record.path, d) for record, d in zip(dataset, dataset.picture_digests)}

    def notes(self, sets: Iterable[Dataset]) -> list[str]:
        """What is odd about these proposals for these sets, a sentence each."""
        known = {digest for dataset in sets for digest in dataset.picture_digests}
        notes = []
        if others := sum(sha256 not in known for _, sha256, _, _ in self.pictures):
            notes.append(f"{self.path.name}: {others} pictures with proposals are not in the data; they are left out")
        counts = np.diff(self.offsets)
        empty = [name for (name, sha256, *_), n in zip(self.pictures, counts) if not n and sha256 in known]
        if empty:
            notes.append(f"{self.path.name}: no proposals in {len(empty)} pictures, the first: {empty[0]}")
        return notes


def write_proposals(path: str | Path, rows: Iterable[Row], method: str) -> ProposalSet:
    """Write a file of proposals, whole or not at all. method: what made them, a word or two.

    Raises UserError: boxes that `read_proposals` would refuse, or a place that cannot be written.
    """
    from safetensors.numpy import save

    path, rows = Path(path), list(rows)
    pictures = tuple((row.name, row.sha256, int(row.size[0]), int(row.size[1])) for row in rows)
    boxes = [np.asarray(row.boxes, np.float32).reshape(-1, 4) for row in rows]
    offsets = np.cumsum([0, *map(len, boxes)], dtype=np.int64)
    tensors = {"boxes": np.concatenate([np.zeros((0, 4), np.float32), *boxes]), "offsets": offsets}
    _checked(path, tensors["boxes"], offsets, pictures)
    metadata = {"format": FORMAT, "version": VERSION, "method": method, "pictures": json.dumps(pictures)}
    making = path.with_name(f".{path.name}.writing-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        making.write_bytes(save(tensors, metadata))
        making.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        making.unlink(missing_ok=True)
    return read_proposals(path)


def read_proposals(path: str | Path) -> ProposalSet:
    """The proposals in a file. What reaches out of its picture by up to a pixel is cut off.

    Raises UserError, one line: no such file, another format, no proposals at all, two rows for one picture, or the
    first box that is not finite, has no area or lies outside its picture.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; make proposals with `tracesight data propose DATA --out {path}`")
    try:
        content = path.read_bytes()
        with safe_open(path, framework="numpy") as file:
            said = file.metadata() or {}
            if said.get("format") != FORMAT:
                raise UserError(f"{path}: not a file of proposals; `tracesight data propose` makes one")
            if said.get("version") != VERSION:
                raise UserError(f"{path}: version {said.get('version')}, this Tracesight reads {VERSION}; update it")
            boxes, offsets = file.get_tensor("boxes"), file.get_tensor("offsets")
            pictures = tuple((str(n), str(d), int(h), int(w)) for n, d, h, w in json.loads(said["pictures"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as proposals ({' '.join(str(error).split())[:120]})") from error
    boxes = _checked(path, boxes.astype(np.float32, copy=False).reshape(-1, 4), offsets, pictures)
    digest = hashlib.sha256(content).hexdigest()
    return ProposalSet(path, str(said.get("method", "")), boxes, offsets, pictures, digest)


def _checked(
    path: Path, boxes: np.ndarray, offsets: np.ndarray, pictures: tuple[tuple[str, str, int, int], ...]
) -> np.ndarray:
    """Boxes (T, 4), cut off at their pictures' edges. Raises UserError for the first that cannot be meant so."""
    fits = offsets.shape == (len(pictures) + 1,) and offsets[0] == 0 and offsets[-1] == len(boxes)
    if not fits or (np.diff(offsets) < 0).any():
        raise UserError(f"{path}: damaged: boxes and pictures do not belong together; make it anew")
    digests = [sha256 for _, sha256, _, _ in pictures]
    if len(set(digests)) < len(digests):
        twice = next(name for row, (name, sha256, *_) in enumerate(pictures) if sha256 in digests[:row])
        raise UserError(f"{path}: two rows for one picture, the second as {twice}; leave one out")
    if not len(boxes):
        raise UserError(f"{path}: holds no proposals at all; make it anew")
    row = np.repeat(np.arange(len(pictures)), np.diff(offsets))
    limits = np.array([(w, h, w, h) for _, _, h, w in pictures], np.float32)[row]
    faults = {
        "is not finite": ~np.isfinite(boxes).all(1),
        "has no area": ~(boxes[:, 2:] > boxes[:, :2]).all(1),
        "lies outside its picture": ((boxes < -REACH) | (boxes > limits + REACH)).any(1),
    }
    for what, wrong in faults.items():
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            name, number = pictures[row[first]][0], first - int(offsets[row[first]]) + 1
            box = ", ".join(f"{value:g}" for value in boxes[first])
            raise UserError(f"{path}: proposal {number} of {name} ({box}) {what}; correct or leave it out")
    return np.clip(boxes, 0, limits)
