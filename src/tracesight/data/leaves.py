"""The digest of what the labels of a picture say.

Lists, texts, whole numbers and null only (`lineage.manifest.canonical`), so that any program can write the same
bytes: `docs/manifest.md` has the definition.
"""

from __future__ import annotations

import hashlib
from typing import Any

from tracesight.data.record import Annotation, Record
from tracesight.lineage.manifest import canonical
from tracesight.scene.mask import Mask

_WHOLE = 1e15  # above it there are whole numbers only, and what times 1000 overflows


def labels_digest(record: Record) -> str:
    """64 hex digits: SHA-256 over what a training learns from and an evaluation counts.

    Not over ids of annotations, areas, who drew them or when, nor over the picture itself.
    """
    objects = sorted([canonical(_object(a)) for a in record.annotations])
    rest = b"[],null,[]]"
    if record.labels or record.absent is not None or record.not_exhaustive:
        absent = None if record.absent is None else sorted(set(record.absent))
        rest = canonical([sorted(set(record.labels)), absent, sorted(set(record.not_exhaustive))])[1:]
    head = b"[%d,%d,[" % (record.height, record.width)
    return hashlib.sha256(head + b",".join(objects) + b"]," + rest).hexdigest()


def _object(a: Annotation) -> list[Any]:
    points = None if a.keypoints is None else [[_thousandths(x), _thousandths(y), int(v)] for x, y, v in a.keypoints]
    box = [_thousandths(value) for value in a.box]
    return [a.category_id, box, _mask(a.segmentation), int(a.crowd), int(a.difficult), points]


def _mask(shape: Any) -> list[Any] | None:
    if shape is None:
        return None
    if isinstance(shape, dict):
        shape = Mask.from_coco(shape)
    if isinstance(shape, Mask):
        coco = shape.to_coco()
        return ["rle", *coco["size"], coco["counts"]]
    return ["polygons", *(list(map(_thousandths, part)) for part in shape)]


def _thousandths(value: float) -> int:
    """Of a pixel; halves go to the even neighbour."""
    return round(value * 1000) if -_WHOLE < value < _WHOLE else int(value) * 1000
