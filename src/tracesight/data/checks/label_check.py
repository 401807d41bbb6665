"""What a check of labels is given and gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tracesight.data.finding import Change, Finding, Kind
from tracesight.data.points import Keypoints
from tracesight.data.record import Annotation, Record
from tracesight.scene.mask import Mask


class Labels(NamedTuple):
    """What a check may know beside the record: of each category by id its name and keypoints (those that have any), and
    where the set's labels are."""

    categories: Mapping[int, str]
    path: Path
    points: Mapping[int, Keypoints] = {}


Found = tuple[Record, Sequence[Finding]]
# What is wrong with an annotation, in which way, and what becomes of it (None: it is removed).
Verdict = tuple[Kind, str, Annotation | None]
LabelCheck = Callable[[Record, Labels], Found]


def each(record: Record, labels: Labels, judge: Callable[[Annotation], Verdict | None]) -> Found:
    """Put every annotation to `judge`, which gives None where it is sound. The record is the same where all are."""
    findings: list[Finding] = []
    kept: list[Annotation] = []
    for annotation in record.annotations:
        verdict = judge(annotation)
        if verdict is None:
            kept.append(annotation)
            continue
        kind, message, mended = verdict
        change = changed(annotation, mended) if mended != annotation else None
        findings.append(finding(kind, record, labels, message, annotation, change))
        if mended is not None:
            kept.append(mended)
    return (replace(record, annotations=tuple(kept)), findings) if findings else (record, ())


def finding(
    kind: Kind,
    record: Record,
    labels: Labels,
    message: str,
    annotation: Annotation | None = None,
    change: Change | None = None,
) -> Finding:
    """A finding on an annotation, or on the picture as a whole where there is none."""
    file = record.label_file or labels.path
    who = f"picture {record.name}" if annotation is None else f"annotation {annotation.id} on {record.name}"
    number, box = (None, None) if annotation is None else (annotation.id, annotation.box)
    return Finding(kind, f"{file}: {who}", message, record.path, number, box, change)


def changed(annotation: Annotation, mended: Annotation | None) -> Change:
    """Which fields of an annotation are others now; for one that was removed, what it was."""
    before = _fields(annotation)
    if mended is None:
        return Change(before, None)
    after = {name: value for name, value in _fields(mended).items() if before[name] != value}
    return Change({name: before[name] for name in after}, after)


def _fields(annotation: Annotation) -> dict[str, Any]:
    shape = annotation.segmentation
    return {
        "category_id": annotation.category_id,
        "box": list(annotation.box),
        "segmentation": shape.to_coco() if isinstance(shape, Mask) else polygons(annotation) or shape,
        "keypoints": annotation.keypoints,
    }


def polygons(annotation: Annotation) -> list[list[float]] | None:
    """The polygons of an annotation; None where it has none, or another kind of mask."""
    shape = annotation.segmentation
    return None if shape is None or isinstance(shape, Mask | dict) else [list(part) for part in shape]


def brief(box: Sequence[float]) -> str:
    """A box for a message: (x1, y1, x2, y2) without needless digits."""
    return f"({', '.join(f'{v:.6g}' for v in box)})"
