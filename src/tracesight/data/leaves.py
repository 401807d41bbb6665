"""The labels of a picture as the one sequence of bytes that stands for them in a Merkle tree.

Lists, texts, whole numbers and null only (`lineage.manifest.canonical`), so that any program can write the same bytes:
`docs/manifest.md` has the definition.
"""

from __future__ import annotations

from typing import Any

from tracesight.data.record import Annotation, Record
from tracesight.lineage.manifest import canonical
from tracesight.scene.mask import Mask


def labels_leaf(record: Record, sha256: str) -> bytes:
    """What the leaf of a picture's labels is the hash of. sha256: 64 hex digits, of the picture's bytes.

    It holds what a training learns from and an evaluation counts: not ids of annotations, areas, who drew it or when.
    """
    objects = sorted(canonical(_object(a)) for a in record.annotations)
    absent = None if record.absent is None else sorted(set(record.absent))
    head = canonical(["labels", sha256, record.height, record.width])[:-1]
    tail = canonical([sorted(set(record.labels)), absent, sorted(set(record.not_exhaustive))])[1:]
    return head + b",[" + b",".join(objects) + b"]," + tail


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
    return ["polygons", *([round(value * 1000) for value in part] for part in shape)]


def _thousandths(value: float) -> int:
    """Of a pixel; halves go to the even neighbour."""
    return round(value * 1000)
