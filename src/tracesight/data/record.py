"""Labelled pictures as rows: `Annotation` and `Record`; `dataset.py` keeps many of them.

Boxes are (x1, y1, x2, y2) in pixels, half-open, origin top left, after EXIF orientation has been applied.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracesight.data.clip import within_reach
from tracesight.data.polygons import Polygons
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


def packed_path(packed: bytes | memoryview) -> str:
    """The path, as text, of a record of `Dataset.packed`."""
    return pickle.loads(packed)[_PATH]


def _no_pixels(height: int, width: int) -> Mask:
    return Mask.from_coco({"size": [height, width], "counts": [height * width]})
