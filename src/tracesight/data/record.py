"""Labelled pictures as rows: `Annotation`, `Record`, and `Dataset`, which keeps the rows in one buffer.

Boxes are (x1, y1, x2, y2) in pixels, half-open, origin top left, after EXIF orientation has been applied.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracesight.data.clip import within_reach
from tracesight.data.digests import file_digests
from tracesight.data.points import Keypoints
from tracesight.data.polygons import Polygons
from tracesight.lineage.digest import rows_digest
from tracesight.scene.mask import Mask

Box = tuple[float, float, float, float]
# The values of an annotation in the order of its fields, those behind the area only where they are not what they mostly
# are; `Polygons` as their text and a mask of the picture's size as its counts.
Plain = tuple[Any, ...]


@dataclass(frozen=True)
class Annotation:
    """One labelled object.

    id: as in the label file; any integer, 0 included, or a string.
    category_id: a key of `Dataset.categories`; any integer.
    box: (x1, y1, x2, y2) pixels, half-open.
    segmentation: polygons [[x, y, x, y, …], …] in pixels (a list or `Polygons`), a `Mask`, COCO's {"size", "counts"}
        (either form), or None.
    crowd: a region that holds objects nobody told apart; it is ignored in training and evaluation.
    area: square pixels as the label file says, or None.
    annotator, tool, time: who drew it, with what and when, where the label file says so.
    keypoints: (x, y, visibility) of each point, pixels and 0 (not labelled), 1 (hidden) or 2 (visible); or None.
    difficult: VOC's mark of an object that is hard to make out; like a crowd it is ignored (`ignored`).
    truncated: VOC's mark of an object of which the picture shows a part only; it is learned from like others.
    """

    id: int | str
    category_id: int
    box: Box
    segmentation: Sequence[Sequence[float]] | dict[str, Any] | Mask | None = None
    crowd: bool = False
    area: float | None = None
    annotator: str | None = None
    tool: str | None = None
    time: str | None = None
    keypoints: tuple[tuple[float, float, int], ...] | None = None
    difficult: bool = False
    truncated: bool = False

    @property
    def ignored(self) -> bool:
        """Neither learned from nor counted: a crowd, or difficult."""
        return self.crowd or self.difficult

    def mask(self, height: int, width: int) -> Mask | None:
        """The object's pixels in a picture of this size; None where it has no segmentation.

        Polygons are filled by faster-coco-eval's rasteriser, as COCO's own tools do. Raises ValueError for run lengths
        that do not fit the picture.
        """
        shape = self.segmentation
        if shape is None:
            return None
        if isinstance(shape, Mask):
            mask = shape
        elif isinstance(shape, dict):
            mask = Mask.from_coco(shape)
        else:
            from faster_coco_eval.mask_api_new_cpp import segmToRle

            parts = [near for part in shape if (near := within_reach(part, height, width))]
            mask = Mask.from_coco(segmToRle(parts, width, height)) if parts else _no_pixels(height, width)
        if mask.size != (height, width):
            raise ValueError(f"mask of size {mask.size} on a picture of size {(height, width)}")
        return mask

    def __getstate__(self) -> tuple[Any, ...]:
        return tuple(vars(self).values())

    def __setstate__(self, state: tuple[Any, ...] | dict[str, Any]) -> None:
        vars(self).update(state if isinstance(state, dict) else zip(FIELDS_OF_ANNOTATION, state))


@dataclass(frozen=True)
class Record:
    """One picture and its labels. `width` and `height` are pixels after EXIF orientation.

    absent: ids of the categories that were looked for and are not in the picture; of a category that is neither here
    nor labelled nobody knows (LVIS: "federated" labels). None: every category that is not labelled is absent, as in
    COCO. not_exhaustive: ids of the categories of which the picture may hold more objects than are labelled.
    name: the picture's path inside its set, with `/`, as the labels have it; the file's name where nothing says more.
    label_file: the file that holds the labels of this picture alone; None where one file holds those of the set.
    labels: ids of the categories of the picture as a whole, for classification; empty where there are none.
    group: what the picture belongs to (a patient, a slide, a flight) and must not be split from; None where unknown.
    """

    id: int
    path: Path
    width: int
    height: int
    annotations: tuple[Annotation, ...] = field(default_factory=tuple)
    split: str | None = None
    licence: str | None = None
    source: str | None = None
    sensor: str | None = None
    captured_at: str | None = None
    absent: tuple[int, ...] | None = None
    not_exhaustive: tuple[int, ...] = ()
    name: str = ""
    label_file: Path | None = None
    labels: tuple[int, ...] = ()
    group: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.path.name)

    @classmethod
    def plain(cls, annotations: list[Plain], fields: dict[str, Any]) -> Record:
        """A record with these annotations and other fields, the path as text under `PATH_TEXT`, in a fifth of the time:
        for who reads a million."""
        record = object.__new__(cls)
        vars(record).update(fields)
        vars(record)[_PLAIN] = annotations
        return record

    @property
    def path_text(self) -> str:
        """The path as text; quick where nobody has looked at `path` yet."""
        return vars(self).get(PATH_TEXT) or str(self.path)

    def plain_annotations(self) -> list[Plain]:
        """The annotations as plain values; quick where nobody has looked at `annotations` yet."""
        plain = vars(self).get(_PLAIN)
        if plain is None:
            size = (self.height, self.width)
            return [_plain(a, size) for a in self.annotations]
        if type(plain) is bytes:
            plain = vars(self)[_PLAIN] = pickle.loads(plain)
        return plain

    if not TYPE_CHECKING:  # pyright would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            """Annotations and path are made when they are first looked at: many uses never do."""
            values = vars(self)
            if name == "annotations" and _PLAIN in values:
                made = values[name] = _annotations(self.plain_annotations(), (self.height, self.width))
                del values[_PLAIN]
                return made
            if name == "path" and PATH_TEXT in values:
                made = values[name] = Path(values.pop(PATH_TEXT))
                return made
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    # Values alone, those of annotations packed once more, so that the rest can be read without them: a third of what
    # pickle would write, in a third of the time.
    def __getstate__(self) -> tuple[Any, ...]:
        values = vars(self)
        plain = values.get(_PLAIN)
        packed = plain if type(plain) is bytes else pickle.dumps(self.plain_annotations(), pickle.HIGHEST_PROTOCOL)
        state = [values.get(name, default) for name, default in _DEFAULTS]
        state[_PATH], state[_ANNOTATIONS] = self.path_text, packed
        return tuple(state)

    def __setstate__(self, state: tuple[Any, ...] | dict[str, Any]) -> None:  # a dict as pickle would write it
        values = vars(self)
        values.update(state if isinstance(state, dict) else zip(_FIELDS_OF_RECORD, state))
        if isinstance(values["path"], str):
            values[PATH_TEXT] = values.pop("path")
        if isinstance(values["annotations"], bytes):
            values[_PLAIN] = values.pop("annotations")


FIELDS_OF_ANNOTATION = tuple(field.name for field in fields(Annotation))
_FIELDS_OF_RECORD = tuple(field.name for field in fields(Record))
_SHAPE = FIELDS_OF_ANNOTATION.index("segmentation")
_PATH, _ANNOTATIONS = (_FIELDS_OF_RECORD.index(name) for name in ("path", "annotations"))
_DEFAULTS = tuple((name, getattr(Record, name, None)) for name in _FIELDS_OF_RECORD)
PATH_TEXT = "path as text"  # in the place of `path`
_PLAIN = "plain annotations"  # in the place of `annotations`: their `Plain` values, as they are or pickled


def _plain(annotation: Annotation, size: tuple[int, int]) -> Plain:
    values = tuple(vars(annotation).values())
    shape = values[_SHAPE]
    if type(shape) is Polygons:
        return (*values[:_SHAPE], shape.text, *values[_SHAPE + 1 :])
    if type(shape) is Mask and shape.size == size:
        return (*values[:_SHAPE], shape.counts, *values[_SHAPE + 1 :])
    return values


def _annotations(plain: list[Plain], size: tuple[int, int]) -> tuple[Annotation, ...]:
    """The other way. In one loop, since a check spends much of its time here."""
    annotations = []
    for values in plain:
        annotation = object.__new__(Annotation)
        fields = annotation.__dict__
        fields.update(zip(FIELDS_OF_ANNOTATION, values))
        shape = values[_SHAPE]
        if type(shape) is bytes:
            fields["segmentation"] = Mask.trusted(shape, size)
        elif type(shape) is str:
            fields["segmentation"] = Polygons(shape)
        annotations.append(annotation)
    return tuple(annotations)


def unpacked(packed: bytes | memoryview) -> Record:
    """The record of `Dataset.packed`."""
    record = object.__new__(Record)
    record.__setstate__(pickle.loads(packed))
    return record


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
        return [pickle.loads(packed)[_PATH] for packed in self._all_packed()]

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


def _no_pixels(height: int, width: int) -> Mask:
    return Mask.from_coco({"size": [height, width], "counts": [height * width]})


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
