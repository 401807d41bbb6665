"""`Dataset`: the labelled pictures of a set as rows in one buffer, and their digest."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tracesight.data.digests import file_digests
from tracesight.data.points import Keypoints
from tracesight.data.polygons import Polygons
from tracesight.data.record import Annotation, Record, packed_path, unpacked
from tracesight.lineage.digest import rows_digest
from tracesight.scene.mask import Mask


@dataclass(frozen=True, eq=False)
class Dataset:
    """Records and categories.

    The records lie pickled one after another in `buffer`, and `[i]` unpickles one. A worker process that is forked
    shares the buffer's pages for good, since reading them writes nothing: a list of a million annotation objects would
    be copied page by page, as each look at an object changes its reference count.

    buffer: uint8 (bytes,). offsets: int64 (records + 1,), where each record starts. order: int64 (n,), which records
    this dataset holds. categories: name by id. path: where it was read from. notes: what the reader put right or found
    odd, one sentence each. numbered: the labels have names only, and the ids are 1, 2, … of the sorted names.
    keypoints: by category id, where its objects have points. parents: name of the category above one, by its id, where
    the labels say so (COCO's supercategory). about: what the labels say of the set as a whole (COCO's info).
    """

    buffer: np.ndarray
    offsets: np.ndarray
    order: np.ndarray
    categories: dict[int, str]
    path: Path
    notes: tuple[str, ...] = ()
    numbered: bool = False
    keypoints: dict[int, Keypoints] = field(default_factory=dict)
    parents: dict[int, str] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        records: Iterable[Record],
        categories: dict[int, str],
        path: Path | str = ".",
        notes: Sequence[str] = (),
        numbered: bool = False,
        keypoints: Mapping[int, Keypoints] | None = None,
        parents: Mapping[int, str] | None = None,
        about: Mapping[str, str] | None = None,
    ) -> Dataset:
        """Pack `records`, which may be a generator; categories are kept in ascending id.

        `categories`, `keypoints` and `parents` may be filled while the records are drawn.
        """
        packed, offsets = bytearray(), [0]
        for record in records:
            packed += pickle.dumps(record.__getstate__(), pickle.HIGHEST_PROTOCOL)
            offsets.append(len(packed))
        buffer = np.frombuffer(packed, np.uint8)
        order = np.arange(len(offsets) - 1, dtype=np.int64)
        in_order = {i: categories[i] for i in sorted(categories)}
        return cls(
            buffer, np.asarray(offsets, np.int64), order, in_order, Path(path), tuple(notes), numbered,
            dict(keypoints or {}), dict(parents or {}), dict(about or {}),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Record:
        return unpacked(self.packed(index))

    def packed(self, index: int) -> memoryview:
        """The record as it lies in the buffer, for `unpacked`."""
        row = self.order[index]
        return self.buffer[self.offsets[row] : self.offsets[row + 1]].data

    def __iter__(self) -> Iterator[Record]:
        return map(unpacked, self._all_packed())

    def _all_packed(self) -> Iterator[memoryview]:
        """`packed` of one after the other, in a fifth of the time."""
        content, offsets = self.buffer.data, self.offsets.tolist()
        return (content[offsets[row] : offsets[row + 1]] for row in self.order.tolist())

    def paths(self) -> list[Path]:
        """The file of each picture, without a look at its annotations."""
        return list(map(Path, self.path_texts()))

    def path_texts(self) -> list[str]:
        """The same as texts, which are made, compared and looked up in a fraction of the time."""
        return list(map(packed_path, self._all_packed()))

    @property
    def category_ids(self) -> list[int]:
        """Ascending ids: the i-th category is index i of a classifier and label i + 1 of a detector (0: background)."""
        return sorted(self.categories)

    @property
    def labels(self) -> dict[int, int]:
        """Detector label, 1 to C, by category id."""
        return {category: label for label, category in enumerate(self.category_ids, start=1)}

    def subset(self, indices: Sequence[int] | np.ndarray) -> Dataset:
        """The records at these positions, in this order; the buffer is shared."""
        return replace(self, order=self.order[np.asarray(indices, np.int64)])

    def part(self, start: int, stop: int) -> Dataset:
        """The records from one position to another in a buffer of their own, to be sent to another process."""
        packed = [self.packed(index) for index in range(start, min(stop, len(self)))]
        offsets = np.cumsum([0, *map(len, packed)], dtype=np.int64)
        buffer = np.frombuffer(b"".join(packed), np.uint8)
        return replace(self, buffer=buffer, offsets=offsets, order=np.arange(len(packed), dtype=np.int64))

    def evenly(self, count: int) -> Dataset:
        """`count` records at most, at even distances: folders come one after another, and each gets its share."""
        count = min(count, len(self))
        return self.subset(np.arange(count) * len(self) // max(1, count))

    def with_records(self, changed: Mapping[int, Record | None]) -> Dataset:
        """The same data with other records at these positions; None leaves one out."""
        if not changed:
            return self
        if not any(changed.values()):
            return self.subset([index for index in range(len(self)) if index not in changed])
        records = (changed.get(index) or self[index] for index in range(len(self)) if changed.get(index, 0) is not None)
        new = Dataset.of(records, self.categories)
        return replace(self, buffer=new.buffer, offsets=new.offsets, order=new.order)

    def with_categories(self, categories: dict[int, str]) -> Dataset:
        """The same records under another table of categories."""
        return replace(self, categories={i: categories[i] for i in sorted(categories)})

    def with_notes(self, notes: Sequence[str]) -> Dataset:
        """The same data with these notes after those it has."""
        return replace(self, notes=(*self.notes, *notes))

    def renamed(self, categories: dict[int, str]) -> Dataset:
        """The same data under the ids that `categories` has for its names; other names get the next ids after those.

        For labels that have names only (`numbered`), so that train and val, or a bundle and its data, agree.
        """
        by_name = {name: number for number, name in categories.items()}
        new = [name for name in self.categories.values() if name not in by_name]
        by_name |= {name: number for number, name in enumerate(new, start=max(categories, default=0) + 1)}
        ids = {number: by_name[name] for number, name in self.categories.items()}
        every = dict(categories) | {by_name[name]: name for name in new}
        if all(old == new for old, new in ids.items()):
            return self.with_categories(every)
        records = (_renumbered(record, ids) for record in self)
        keypoints = {ids[number]: points for number, points in self.keypoints.items()}
        parents = {ids[number]: name for number, name in self.parents.items()}
        return Dataset.of(records, every, self.path, self.notes, self.numbered, keypoints, parents, self.about)

    @cached_property
    def picture_digests(self) -> tuple[str, ...]:
        """SHA-256 (hex) of every picture file, in order; of unchanged files those that were computed before.

        Raises UserError: the first file that cannot be read.
        """
        return tuple(file_digests(self.paths()))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over categories, labels and the bytes of every picture; independent of paths and of order."""
        rows = [_row(record, digest) for record, digest in zip(self, self.picture_digests)]
        table = [json.dumps(sorted(self.categories.items()))]
        if self.keypoints:
            table.append(json.dumps(sorted((i, points.names, points.skeleton) for i, points in self.keypoints.items())))
            told = sorted((i, points.swaps) for i, points in self.keypoints.items() if points.swaps is not None)
            table += [json.dumps(told)] if told else []
        return rows_digest([*table, *sorted(rows)])


def _renumbered(record: Record, ids: dict[int, int]) -> Record:
    annotations = tuple(replace(a, category_id=ids[a.category_id]) for a in record.annotations)
    return replace(record, annotations=annotations, labels=tuple(ids[number] for number in record.labels))


def _row(record: Record, digest: str) -> str:
    """A record without its path as one line of JSON, its picture as the digest of the file's bytes."""
    row = [digest, record.id, record.height, record.width, [_fields(a) for a in record.annotations]]
    # Only where there is something to say: data without it keeps the digest that it had before there was a place.
    if record.absent is not None or record.not_exhaustive:
        absent = None if record.absent is None else sorted(set(record.absent))
        row += [absent, sorted(set(record.not_exhaustive))]
    if record.labels:
        row += ["labels", sorted(set(record.labels))]
    return json.dumps(row, sort_keys=True)


def _fields(a: Annotation) -> list[Any]:
    fields = [a.id, a.category_id, a.box, _shape(a.segmentation), a.crowd, a.area, a.annotator, a.tool, a.time]
    if a.keypoints is not None or a.difficult:
        fields += [a.keypoints, a.difficult]
    return [*fields, "truncated"] if a.truncated else fields


def _shape(segmentation: Any) -> Any:
    if isinstance(segmentation, Polygons):
        return list(segmentation)
    return segmentation.to_coco() if isinstance(segmentation, Mask) else segmentation
