"""The digest of what the labels of a picture say.

Lists, texts, whole numbers and null only (`lineage.manifest.canonical`), so that any program can write the same
bytes: `docs/manifest.md` has the definition.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic_core import from_json

from tracesight.data.record import FIELDS_OF_ANNOTATION, Plain, Record
from tracesight.lineage.manifest import canonical
from tracesight.scene.mask import Mask

_CATEGORY, _BOX, _SHAPE, _CROWD, _POINTS, _DIFFICULT = map(
    FIELDS_OF_ANNOTATION.index, ("category_id", "box", "segmentation", "crowd", "keypoints", "difficult")
)
_WHOLE = 1e15  # above it there are whole numbers only, and what times 1000 overflows


def labels_digest(record: Record) -> str:
    """64 hex digits: SHA-256 over what a training learns from and an evaluation counts.

    Not over ids of annotations, areas, who drew them or when, nor over the picture itself.
    """
    size = (record.height, record.width)
    objects = sorted([_object(values, size) for values in record.plain_annotations()])
    rest = b"[],null,[]]"
    if record.labels or record.absent is not None or record.not_exhaustive:
        absent = None if record.absent is None else sorted(set(record.absent))
        rest = canonical([sorted(set(record.labels)), absent, sorted(set(record.not_exhaustive))])[1:]
    head = b"[%d,%d,[" % (record.height, record.width)
    return hashlib.sha256(head + b",".join(objects) + b"]," + rest).hexdigest()


def _object(values: Plain, size: tuple[int, int]) -> bytes:
    """[category, [x1, y1, x2, y2], mask, crowd, difficult, points], canonical."""
    box, shape = values[_BOX], values[_SHAPE]
    points = values[_POINTS] if len(values) > _POINTS else None
    if min(box) > -_WHOLE and max(box) < _WHOLE:
        x1, y1, x2, y2 = [round(value * 1000) for value in box]
    else:
        x1, y1, x2, y2 = map(_thousandths, box)
    return b"[%d,[%d,%d,%d,%d],%b,%d,%d,%b]" % (
        values[_CATEGORY], x1, y1, x2, y2,
        b"null" if shape is None else canonical(_mask(shape, size)),
        values[_CROWD],
        len(values) > _DIFFICULT and values[_DIFFICULT],
        b"null" if points is None else canonical([[_thousandths(x), _thousandths(y), int(v)] for x, y, v in points]),
    )  # fmt: skip


def _mask(shape: Any, size: tuple[int, int]) -> list[Any]:
    if isinstance(shape, bytes):
        return ["rle", *size, shape.decode("ascii")]
    if isinstance(shape, dict):
        shape = Mask.from_coco(shape)
    if isinstance(shape, Mask):
        coco = shape.to_coco()
        return ["rle", *coco["size"], coco["counts"]]
    parts = from_json(shape) if isinstance(shape, str) else shape
    return ["polygons", *(list(map(_thousandths, part)) for part in parts)]


def _thousandths(value: float) -> int:
    """Of a pixel; halves go to the even neighbour."""
    return round(value * 1000) if -_WHOLE < value < _WHOLE else int(value) * 1000
