"""labelme out: a JSON file beside each picture."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from tracesight.data.dataset import Dataset
from tracesight.data.formats.losses import counted, losses
from tracesight.data.formats.outlines import APART
from tracesight.data.formats.places import folder_of
from tracesight.data.formats.placing import Names, place, renamed
from tracesight.data.record import Annotation, Record
from tracesight.scene.mask import Mask

KEPT = {
    "objects", "masks of objects", "the mark of crowds", "the mark of difficult objects",
    "the mark of truncated objects", "categories of a picture as a whole",
}  # fmt: skip
_VERSION = "5.4.1"  # of labelme, whose files these look like


def write_labelme(sets: Mapping[str, Dataset], folder: Path) -> list[str]:
    """Write each set into a folder of its own. Run lengths become shapes of the kind "mask", polygons stay polygons,
    and several of one object share a `group_id`; an object without a mask becomes a rectangle."""
    counts: Counter[str] = Counter()
    given: list[tuple[str, str]] = []
    for split, dataset in sets.items():
        home, taken = folder_of(folder, split), Names()
        for record in dataset:
            picture = home / place(record, home, taken)
            data = {
                "version": _VERSION,
                "flags": {dataset.categories[number]: True for number in record.labels},
                "shapes": list(_shapes(record, dataset.categories, counts)),
                "imagePath": picture.name,
                "imageData": None,
                "imageHeight": record.height,
                "imageWidth": record.width,
            }
            text = json.dumps(data, indent=1, ensure_ascii=False)
            picture.with_suffix(".json").write_text(text, encoding="utf-8")
        given += taken.values()
    return [
        *losses(sets, "labelme", KEPT, named=True),
        *counted(counts["moved"], "labelme has masks or boxes: {} boxes became those around their masks"),
        *renamed(given, "pictures"),
    ]


def _shapes(record: Record, names: Mapping[int, str], counts: Counter[str]) -> Iterator[dict[str, Any]]:
    for number, annotation in enumerate(record.annotations, start=1):
        drawn = list(_drawn(annotation, record, counts))
        flags = {name: True for name in ("crowd", "difficult", "truncated") if getattr(annotation, name)}
        for part in drawn:
            yield {
                "label": names[annotation.category_id], "group_id": number if len(drawn) > 1 else None,
                "description": "", "flags": flags, "mask": None, **part,
            }  # fmt: skip


def _drawn(annotation: Annotation, record: Record, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """Kind, points and mask of every part of an object."""
    shape = annotation.segmentation
    if shape is not None and not isinstance(shape, Mask | dict):
        points = [[[float(x), float(y)] for x, y in zip(part[0::2], part[1::2])] for part in shape]
        every = [point for part in points for point in part]
        xs, ys = zip(*every)
        counts["moved"] += _apart(annotation, (min(xs), min(ys), max(xs), max(ys)))
        yield from ({"shape_type": "polygon", "points": part} for part in points)
        return
    mask = annotation.mask(record.height, record.width)
    if mask is None or not mask.area:
        x1, y1, x2, y2 = annotation.box
        yield {"shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]}
        return
    counts["moved"] += _apart(annotation, mask.box)
    crop, (top, left) = mask.to_crop()
    height, width = crop.shape
    stream = io.BytesIO()
    Image.fromarray(crop).save(stream, "PNG")
    yield {
        "shape_type": "mask", "points": [[left, top], [left + width - 1, top + height - 1]],
        "mask": base64.b64encode(stream.getvalue()).decode(),
    }  # fmt: skip


def _apart(annotation: Annotation, box: tuple[float, float, float, float]) -> bool:
    return max(abs(a - b) for a, b in zip(box, annotation.box)) > APART
