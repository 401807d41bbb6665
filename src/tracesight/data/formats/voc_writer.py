"""Pascal VOC out: `Annotations/`, `JPEGImages/`, `ImageSets/Main/` and, for masks, `SegmentationObject/`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from tracesight.data.dataset import Dataset
from tracesight.data.formats.losses import counted, losses
from tracesight.data.formats.places import ALL
from tracesight.data.formats.placing import Names, place, renamed
from tracesight.data.record import Annotation, Record

BORDER = 255  # belongs to no object
KEPT = {
    "objects",
    "masks of objects",
    "the mark of crowds",
    "the mark of difficult objects",
    "the mark of truncated objects",
    "the source of a picture",
}


def write_voc(sets: Mapping[str, Dataset], folder: Path) -> list[str]:
    """Write all sets into one folder; `ImageSets/Main/SPLIT.txt` says which picture is in which.

    Boxes that are not whole pixels are written with decimals. Crowds are written as difficult objects.
    """
    (folder / "ImageSets/Main").mkdir(parents=True)
    taken: Names = {}
    counts: Counter[str] = Counter()
    for split, dataset in sets.items():
        stems = []
        for record in dataset:
            name = place(record, folder / "JPEGImages", taken)
            stem = name[: -len(Path(name).suffix)] if Path(name).suffix else name
            _write_xml(record, dataset.categories, name, folder / "Annotations" / f"{stem}.xml")
            _write_masks(record, folder / "SegmentationObject" / f"{stem}.png", counts)
            counts["crowds"] += sum(a.crowd for a in record.annotations)
            stems.append(stem)
        if split != ALL:
            (folder / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{s}\n" for s in stems), encoding="utf-8")
    return [
        *losses(sets, "voc", KEPT, named=True),
        *counted(counts["crowds"], "voc has no crowds: {} written as difficult"),
        *counted(counts["covered"], "masks do not overlap in voc: {} lost the pixels that a later object has too"),
        *counted(
            counts["deep"], "voc's masks are of up to 254 objects: {} with more are of 16 bits, which few others read"
        ),
        *renamed(taken.values(), "pictures"),
    ]


def _write_xml(record: Record, names: Mapping[int, str], name: str, file: Path) -> None:
    root = ElementTree.Element("annotation")
    _add(root, folder="JPEGImages", filename=name)
    _add(ElementTree.SubElement(root, "source"), database=record.source or "Unknown")
    _add(ElementTree.SubElement(root, "size"), width=record.width, height=record.height, depth=3)
    _add(root, segmented=int(any(a.segmentation is not None for a in record.annotations)))
    for a in record.annotations:
        element = ElementTree.SubElement(root, "object")
        _add(element, name=names[a.category_id], pose="Unspecified", truncated=int(a.truncated),
             difficult=int(a.ignored))  # fmt: skip
        x1, y1, x2, y2 = a.box
        _add(ElementTree.SubElement(element, "bndbox"), xmin=_short(x1 + 1), ymin=_short(y1 + 1), xmax=_short(x2),
             ymax=_short(y2))  # fmt: skip
    ElementTree.indent(root, "\t")
    file.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=False)


def _add(parent: ElementTree.Element, **texts: object) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = str(text)


def _short(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")


def _write_masks(record: Record, file: Path, counts: Counter[str]) -> None:
    """The map of the objects' numbers; none where no object has a mask."""
    if all(a.segmentation is None for a in record.annotations):
        return
    deep = len(record.annotations) >= BORDER
    numbers = np.zeros((record.height, record.width), np.uint16 if deep else np.uint8)
    pixels: dict[int, int] = {}
    for number, annotation in enumerate(record.annotations, start=1):
        pixels[number] = _draw(numbers, number, annotation, record)
    left = np.bincount(numbers.ravel(), minlength=len(pixels) + 1)
    counts["covered"] += sum(left[number] < count for number, count in pixels.items())
    counts["deep"] += deep
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numbers)
    if not deep:
        image.putpalette(_palette())
    image.save(file)


def _draw(numbers: np.ndarray, number: int, annotation: Annotation, record: Record) -> int:
    """Give the pixels of an object its number; how many they are."""
    mask = annotation.mask(record.height, record.width)
    if mask is None:
        return 0
    crop, (top, left) = mask.to_crop()
    numbers[top : top + crop.shape[0], left : left + crop.shape[1]][crop] = number
    return mask.area


def _palette() -> list[int]:
    """VOC's colours: the bits of the number, dealt out to red, green and blue from the highest bit down."""
    colours = []
    for number in range(256):
        for channel in range(3):
            bits = [(number >> (3 * place + channel) & 1) << (7 - place) for place in range(3)]
            colours.append(sum(bits))
    return colours
