"""The same five small pictures with the same objects in every format, written by hand: no writer of the package helps.

Every object is a right-angled polygon of whole pixels, which all rasterisers fill alike, and no two overlap.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tracesight.data.dataset import Dataset
from tracesight.data.record import Annotation, Record
from tracesight.scene.mask import Mask

NAMES = {1: "bolt", 2: "nut"}


class Object(NamedTuple):
    category: str
    corners: tuple[tuple[int, int], ...]

    @property
    def box(self) -> tuple[int, int, int, int]:
        xs, ys = zip(*self.corners)
        return min(xs), min(ys), max(xs), max(ys)

    def pixels(self, height: int, width: int) -> np.ndarray:
        """(H, W) bool, by testing the centre of every pixel for an odd number of edges to its left."""
        y, x = np.mgrid[:height, :width] + 0.5
        crossed = np.zeros((height, width), int)
        for (x1, y1), (x2, y2) in zip(self.corners, [*self.corners[1:], self.corners[0]]):
            if x1 == x2:
                crossed += (x > x1) & (y > min(y1, y2)) & (y < max(y1, y2))
        return crossed % 2 == 1


class Picture(NamedTuple):
    name: str
    width: int
    height: int
    objects: tuple[Object, ...] = ()


def _square(category: str, x: int, y: int, width: int, height: int) -> Object:
    return Object(category, ((x, y), (x + width, y), (x + width, y + height), (x, y + height)))


def _angle(category: str, x: int, y: int, side: int) -> Object:
    """An L: three quarters of a square."""
    half = side // 2
    corners = ((0, 0), (half, 0), (half, half), (side, half), (side, side), (0, side))
    return Object(category, tuple((x + dx, y + dy) for dx, dy in corners))


PICTURES = (
    Picture("a.png", 30, 20, (_square("nut", 0, 0, 7, 5), _angle("bolt", 10, 6, 8), _square("nut", 22, 10, 8, 10))),
    Picture("b 2.png", 24, 32, (_angle("nut", 2, 3, 12), _square("bolt", 16, 20, 5, 12))),
    Picture("d/e.png", 17, 13, (_square("bolt", 1, 1, 15, 11),)),
    Picture("f.png", 20, 20),
    Picture("ü.png", 40, 25, (_angle("bolt", 5, 5, 20), _square("bolt", 30, 2, 7, 9))),
)  # fmt: skip


def write_pictures(folder: Path) -> None:
    for seed, picture in enumerate(PICTURES):
        (folder / picture.name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (picture.height, picture.width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / picture.name)


def truth(folder: Path) -> Dataset:
    """What every reader should give for pictures in `folder`, ids numbering names from 1."""
    ids = {name: number for number, name in NAMES.items()}
    records = [
        Record(number, folder / p.name, p.width, p.height, tuple(
            Annotation(k, ids[o.category], o.box, Mask.from_array(o.pixels(p.height, p.width)))
            for k, o in enumerate(p.objects, start=1)
        ), name=p.name) for number, p in enumerate(PICTURES, start=1)
    ]  # fmt: skip
    return Dataset.of(records, NAMES, folder)


def make_coco(folder: Path) -> None:
    ids = {name: number for number, name in NAMES.items()}
    rows = []
    for number, picture in enumerate(PICTURES, start=1):
        for item in picture.objects:
            x1, y1, x2, y2 = item.box
            rows.append({
                "id": len(rows) + 1, "image_id": number, "category_id": ids[item.category], "iscrowd": 0,
                "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": [[v for corner in item.corners for v in corner]],
            })  # fmt: skip
    write_pictures(folder / "images")
    images = [
        {"id": number, "file_name": p.name, "width": p.width, "height": p.height}
        for number, p in enumerate(PICTURES, start=1)
    ]
    categories = [{"id": number, "name": name} for number, name in NAMES.items()]
    data = {"images": images, "categories": categories, "annotations": rows}
    (folder / "instances.json").write_text(json.dumps(data), encoding="utf-8")


def label_map(picture: Picture, dtype: type = np.uint8) -> np.ndarray:
    numbers = np.zeros((picture.height, picture.width), dtype)
    for number, item in enumerate(picture.objects, start=1):
        numbers[item.pixels(picture.height, picture.width)] = number
    return numbers


def make_voc(folder: Path) -> None:
    write_pictures(folder / "JPEGImages")
    for picture in PICTURES:
        lines = [f"<size><width>{picture.width}</width><height>{picture.height}</height><depth>3</depth></size>"]
        for item in picture.objects:
            x1, y1, x2, y2 = item.box
            box = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
            lines.append(f"<object><name>{item.category}</name><bndbox>{box}</bndbox></object>")
        file = (folder / "Annotations" / picture.name).with_suffix(".xml")
        file.parent.mkdir(parents=True, exist_ok=True)
        name = f"<filename>{Path(picture.name).name}</filename>"
        file.write_text(f"<annotation>{name}{''.join(lines)}</annotation>", encoding="utf-8")
        masks = (folder / "SegmentationObject" / picture.name).with_suffix(".png")
        masks.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(label_map(picture))
        image.putpalette([v for number in range(256) for v in (number, 255 - number, 7)])
        image.save(masks)


def make_yolo(folder: Path) -> None:
    ids = {name: number for number, name in NAMES.items()}
    write_pictures(folder / "images")
    for picture in PICTURES:
        lines = []
        for item in picture.objects:
            points = (f"{x / picture.width:.6f} {y / picture.height:.6f}" for x, y in item.corners)
            lines.append(f"{ids[item.category]} {' '.join(points)}")
        file = (folder / "labels" / picture.name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines), encoding="utf-8")
    (folder / "data.yaml").write_text("path: .\nnames:\n  1: bolt\n  2: nut\n", encoding="utf-8")


def make_labelme(folder: Path) -> None:
    write_pictures(folder)
    for picture in PICTURES:
        shapes = [
            {"label": o.category, "points": o.corners, "shape_type": "polygon", "group_id": None, "flags": {}}
            for o in picture.objects
        ]
        name = Path(picture.name).name
        data = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None,
                "imageHeight": picture.height, "imageWidth": picture.width}  # fmt: skip
        (folder / picture.name).with_suffix(".json").write_text(json.dumps(data), encoding="utf-8")


def make_masks(folder: Path) -> None:
    """One file an object, in a folder a category."""
    write_pictures(folder / "made")
    for picture in PICTURES:
        home = (folder / picture.name).with_suffix("")
        (home / "images").mkdir(parents=True)
        (folder / "made" / picture.name).rename(home / "images" / Path(picture.name).name)
        (home / "masks").mkdir()
        for number, item in enumerate(picture.objects):
            file = home / "masks" / item.category / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            pixels = item.pixels(picture.height, picture.width)
            Image.fromarray(pixels.astype(np.uint8) * 255).save(file)
    for path in sorted((folder / "made").rglob("*"), reverse=True):
        path.rmdir()
    (folder / "made").rmdir()


def make_maps(folder: Path, beside: bool = False) -> None:
    """One map of 16 bits a picture, in `masks` or beside it; they know no categories."""
    write_pictures(folder if beside else folder / "images")
    for picture in PICTURES:
        name = Path(picture.name).with_suffix("")
        file = folder / f"{name}_masks.png" if beside else folder / "masks" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        numbers = label_map(picture, np.uint16)
        Image.fromarray(np.where(numbers > 0, numbers + 300, 0).astype(np.uint16)).save(file)


def make_image_folder(folder: Path) -> None:
    """The pictures that hold a bolt and those that do not, in folders within folders."""
    write_pictures(folder / "made")
    for picture in PICTURES:
        category = "with/bolt" if any(item.category == "bolt" for item in picture.objects) else "without"
        (folder / category).mkdir(parents=True, exist_ok=True)
        (folder / "made" / picture.name).rename(folder / category / Path(picture.name).name)
    (folder / "made/d").rmdir()
    (folder / "made").rmdir()


MAKERS: dict[str, Callable[[Path], None]] = {
    "coco": make_coco, "voc": make_voc, "yolo": make_yolo, "labelme": make_labelme, "masks": make_masks,
    "imagefolder": make_image_folder, "pictures": write_pictures,
}  # fmt: skip
WITH_OBJECTS: Sequence[str] = ("coco", "voc", "yolo", "labelme", "masks")
