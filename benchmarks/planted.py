"""A clean set of pictures and labels, and faults of every kind to plant in it; the tests plant a few of each."""

from __future__ import annotations

import copy
import io
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tracesight.data.finding import Finding
from tracesight.scene.mask import Mask

HEIGHT, WIDTH = 96, 128
CATEGORIES = ("bolt", "nut", "washer")
POINTS = ["left", "middle", "right"]  # of each object
# Codes of what concerns a set as a whole, and follows from other faults in it.
OF_SETS = {
    "anchor-mismatch",
    "category-absent",
    "category-id-0",
    "category-imbalance",
    "category-name-twice",
    "category-unnamed",
    "object-ignored",
    "picture-without-objects",
}
CELLS = [(x, y) for y in (4, 52) for x in (4, 46, 88)]  # where objects of up to 30 pixels lie without touching

Row = dict[str, Any]


@dataclass
class Set:
    """COCO rows of one set and what was planted in it: (code, name of the picture or "", id of the annotation)."""

    folder: Path
    rng: np.random.Generator
    images: list[Row] = field(default_factory=list)
    annotations: list[Row] = field(default_factory=list)
    by_picture: dict[int, list[Row]] = field(default_factory=dict)
    planted: set[tuple[str, str, int | None]] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)  # names of pictures and annotations that may have become odd

    @property
    def next_id(self) -> int:
        """Of an annotation: no other set has it."""
        return len(self.annotations) + (1 if self.folder.name == "train" else 10**6)

    def of(self, picture: Row) -> list[Row]:
        """The annotations of a picture."""
        return self.by_picture.get(picture["id"], [])

    def label(self, picture: Row, row: Row) -> Row:
        """One more annotation on a picture."""
        new = {**copy.deepcopy(row), "id": self.next_id, "image_id": picture["id"]}
        self.annotations.append(new)
        self.by_picture.setdefault(picture["id"], []).append(new)
        return new

    def path(self, picture: Row) -> Path:
        return self.folder / "images" / picture["file_name"]

    def touch(self, picture: Row) -> None:
        self.touched |= {Path(picture["file_name"]).stem, *(f"annotation {row['id']}" for row in self.of(picture))}

    def add(self, picture: Row, objects: list[Row]) -> Row:
        """A picture with copies of these labels; its file is to be written by the caller."""
        number = len(self.images) + 1
        new = {**picture, "id": number, "file_name": f"{self.folder.name}{number:05}.png"}
        new["group"] = f"group {self.folder.name} {new['id']}"
        self.images.append(new)
        for row in objects:
            self.label(new, row)
        return new

    def write(self) -> None:
        categories = [
            {"id": number, "name": name, "keypoints": POINTS} for number, name in enumerate(CATEGORIES, start=1)
        ]
        data = {"images": self.images, "annotations": self.annotations, "categories": categories}
        (self.folder / "instances.json").write_text(json.dumps(data))


def clean_set(folder: Path, pictures: int, seed: int) -> Set:
    """Pictures with two to four objects each, as polygons and run lengths in turn; nothing is wrong with any."""
    made = Set(folder, np.random.default_rng(seed))
    (folder / "images").mkdir(parents=True)
    for number in range(pictures):
        picture = made.add({"file_name": "", "width": WIDTH, "height": HEIGHT}, [])
        if number % 2:
            picture["file_name"] = picture["file_name"].replace(".png", ".jpg")
        image = _scenery(made.rng)
        chosen = made.rng.choice(len(CELLS), int(made.rng.integers(2, 5)), replace=False)
        for cell in chosen:
            made.label(picture, _object(made.rng, CELLS[cell], image))
        image.save(made.path(picture), quality=90)
    return made


def _scenery(rng: np.random.Generator) -> Image.Image:
    """Coarse structure, so that no two look alike."""
    coarse = rng.integers(30, 200, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def _object(rng: np.random.Generator, corner: tuple[int, int], image: Image.Image) -> Row:
    """A blob in its cell, drawn on the picture."""
    rx, ry = rng.uniform(7, 14, 2)
    x, y = corner[0] + rng.uniform(rx, 30 - rx), corner[1] + rng.uniform(ry, 30 - ry)
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    points = np.stack((x + rx * np.cos(angles), y + ry * np.sin(angles)), 1).round(2)
    category = int(rng.integers(1, len(CATEGORIES) + 1))
    ImageDraw.Draw(image).polygon([tuple(point) for point in points.tolist()], fill=(40 + 60 * category, 220, 90))
    (x1, y1), (x2, y2) = points.min(0), points.max(0)
    shape: Any = [points.ravel().tolist()]
    box = [x1, y1, x2 - x1, y2 - y1]
    if rng.random() < 0.5:
        canvas = Image.new("1", (WIDTH, HEIGHT))
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in points.tolist()], fill=1)
        mask = Mask.from_array(np.asarray(canvas))
        shape = mask.to_coco()
        box = [mask.box[0], mask.box[1], mask.box[2] - mask.box[0], mask.box[3] - mask.box[1]]
    # The left one is not labelled on some, the right one hidden on others.
    seen, hidden = int(rng.integers(0, 2)) * 2, int(rng.integers(1, 3))
    left = [round(x - rx / 2, 2), round(y, 2)] if seen else [0, 0]
    named = [*left, seen, round(x, 2), round(y, 2), 2, round(x + rx / 2, 2), round(y, 2), hidden]
    box = [round(float(v), 3) for v in box]
    return {"category_id": category, "bbox": box, "segmentation": shape, "keypoints": named, "iscrowd": 0}


# ---- faults of single objects: they change the row; what else is to be added is returned


def _box_to(change: Callable[[list[float], np.random.Generator], list[float]], keep: bool = True) -> Callable[..., Any]:
    def plant(made: Set, picture: Row, row: Row) -> None:
        row["bbox"] = [round(v, 3) for v in change(row["bbox"], made.rng)]
        if not keep:
            row["segmentation"] = None

    return plant


def _copied(shift: float, keep: bool) -> Callable[..., Row]:
    """The object once more, its box moved by a share of its width."""

    def plant(made: Set, picture: Row, row: Row) -> Row:
        x, y, w, h = row["bbox"]
        if not keep:
            row["segmentation"] = None
        return made.label(picture, {**row, "bbox": [round(x + shift * w, 3), y, w, h]})

    return plant


def _set(key: str, value: Callable[[Set, Row], Any]) -> Callable[..., None]:
    def plant(made: Set, picture: Row, row: Row) -> None:
        row[key] = value(made, row)

    return plant


def _point(value: Callable[[Set, Row], list[float]]) -> Callable[..., None]:
    """The middle keypoint of an object."""
    return _set("keypoints", lambda made, row: [*row["keypoints"][:3], *value(made, row), *row["keypoints"][6:]])


def _away(box: list[float]) -> list[float]:
    x, y, w, _ = box
    return [x - 42 if x >= 42 else x + w + 42, y]


def _bow(made: Set, row: Row) -> Any:
    x, y, w, h = row["bbox"]
    return [[x, y, x + w, y + h, x + w, y, x, y + h]]


def _elsewhere(box: list[float], rng: np.random.Generator) -> list[float]:
    x, y, w, h = box
    return [x - 42 if x >= 42 else x + 42, y, w, h]


def _other_id(made: Set, row: Row) -> int:
    return next(other["id"] for other in made.annotations if other["image_id"] == row["image_id"] and other is not row)


OBJECT_FAULTS: dict[str, Callable[..., Row | None]] = {
    "annotation-id-twice": _set("id", _other_id),
    "annotation-without-picture": _set("image_id", lambda made, row: 10**9 + row["id"]),
    "box-barely-outside": _box_to(lambda b, rng: [-float(rng.uniform(0.1, 0.9)), b[1], b[0] + b[2], b[3]]),
    "box-empty": _box_to(lambda b, rng: [b[0], b[1], 0, b[3]]),
    "box-inverted": _box_to(lambda b, rng: [b[0] + b[2], b[1], -b[2], b[3]]),
    "box-missing": _set("bbox", lambda made, row: None),
    "box-nearly-twice": _copied(0.05, keep=False),
    "box-off-picture": _box_to(lambda b, rng: [WIDTH + float(rng.uniform(1, 99)), b[1], b[2], b[3]]),
    "box-one-pixel": _box_to(lambda b, rng: [round(b[0]), round(b[1]), 1, 1], keep=False),
    "box-outside": _box_to(lambda b, rng: [b[0], b[1], WIDTH - b[0] + float(rng.uniform(1.2, 90)), b[3]]),
    "box-overlap": _copied(0.3, keep=False),
    "box-size-odd": _box_to(lambda b, rng: [0, 0, 120, 90], keep=False),
    "box-thin": _box_to(lambda b, rng: [b[0], b[1], float(rng.uniform(0.1, 0.9)), b[3]]),
    "box-twice": _copied(0, keep=True),
    "category-unknown": _set("category_id", lambda made, row: int(made.rng.integers(4, 99))),
    "keypoint-at-origin": _point(lambda made, row: [0, 0, int(made.rng.integers(1, 3))]),
    "keypoint-count": _set("keypoints", lambda made, row: row["keypoints"][: 3 * int(made.rng.integers(1, 3))]),
    "keypoint-off-box": _point(lambda made, row: [*_away(row["bbox"]), int(made.rng.integers(1, 3))]),
    "keypoint-outside": _point(lambda made, row: [WIDTH + float(made.rng.uniform(1.2, 99)), row["bbox"][1], 2]),
    "label-unreadable": _set("bbox", lambda made, row: [{}, [1, 2], "box", [1, 2, 3, "4"]][row["id"] % 4]),
    "mask-elsewhere": _box_to(_elsewhere),
    "mask-empty": _set("segmentation", lambda made, row: Mask.from_array(np.zeros((HEIGHT, WIDTH))).to_coco()),
    "mask-missing": _set("segmentation", lambda made, row: None),
    "mask-off-box": _box_to(lambda b, rng: [b[0], b[1], 0.5 * b[2], 0.5 * b[3]]),
    "mask-size": _set("segmentation", lambda made, row: Mask.from_array(np.ones((WIDTH, HEIGHT))).to_coco()),
    "polygon-crossing": _set("segmentation", _bow),
    "polygon-points": _set("segmentation", lambda made, row: [[1, 2, 3, 4]]),
}


# ---- faults of pictures: they change files and rows


def _missing(made: Set, picture: Row) -> None:
    made.path(picture).unlink()


def _damaged(made: Set, picture: Row) -> None:
    content = made.path(picture).read_bytes()
    cut = content[: int(made.rng.uniform(0, 0.98) * len(content))]
    made.path(picture).write_bytes(cut if made.rng.random() < 0.8 else b"<html>not found</html>")


def _resized(made: Set, picture: Row) -> None:
    with Image.open(made.path(picture)) as image:
        image.resize((WIDTH + int(made.rng.integers(1, 40)), HEIGHT)).save(made.path(picture))


def _turned(*orientations: int) -> Callable[[Set, Row], None]:
    def plant(made: Set, picture: Row) -> None:
        exif = Image.Exif()
        exif[0x0112] = int(made.rng.choice(orientations))
        with Image.open(made.path(picture)) as image:
            image.load()
            image.save(made.path(picture), exif=exif)

    return plant


def _again(labels: int | None) -> Callable[[Set, Row], Row]:
    def plant(made: Set, picture: Row) -> Row:
        new = made.add(picture, made.of(picture)[:labels])
        shutil.copyfile(made.path(picture), made.path(new))
        return new

    return plant


def _alike(made: Set, picture: Row) -> Row:
    new = made.add(picture, made.of(picture))
    made.path(new).write_bytes(_like(made, picture))
    return new


def _like(made: Set, picture: Row) -> bytes:
    """The same picture compressed anew, and a little brighter."""
    with Image.open(made.path(picture)) as image:
        levels = np.asarray(image.convert("RGB")).astype(np.float32) * float(made.rng.uniform(1.02, 1.1))
    file = io.BytesIO()
    Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=int(made.rng.integers(60, 85)))
    return file.getvalue()


def _outside(made: Set, picture: Row) -> None:
    picture["file_name"] = f"../{picture['file_name']}"


def _id_twice(made: Set, picture: Row) -> Row:
    new = made.add(picture, [])
    shutil.copyfile(made.path(picture), made.path(new))
    new["id"] = picture["id"]
    return new


PICTURE_FAULTS: dict[str, Callable[[Set, Row], Row | None]] = {
    "picture-alike": _alike,
    "picture-id-twice": _id_twice,
    "picture-missing": _missing,
    "picture-outside-folder": _outside,
    "picture-rotated": _turned(5, 6, 7, 8),
    "picture-size": _resized,
    "picture-turned": _turned(2, 3, 4),
    "picture-twice": _again(None),
    "picture-twice-otherwise": _again(1),
    "picture-unreadable": _damaged,
}


# ---- faults across two sets


def _across(train: Set, val: Set, picture: Row) -> Row:
    new = val.add(picture, train.of(picture))
    shutil.copyfile(train.path(picture), val.path(new))
    return picture


def _alike_across(train: Set, val: Set, picture: Row) -> Row:
    new = val.add(picture, train.of(picture))
    val.path(new).write_bytes(_like(train, picture))
    return new


def _group(train: Set, val: Set, picture: Row) -> Row:
    other = next(image for image in val.images if image["group"].startswith("group val"))
    other["group"] = picture["group"]
    return picture


SPLIT_FAULTS: dict[str, Callable[[Set, Set, Row], Row]] = {
    "group-across-splits": _group,
    "picture-across-splits": _across,
    "picture-alike-across-splits": _alike_across,
}


def plant(folder: Path, times: int, seed: int = 0) -> dict[str, Set]:
    """Write `folder`/train and `folder`/val with `times` faults of each of these kinds, each on its own picture."""
    codes = [code for code in (*OBJECT_FAULTS, *PICTURE_FAULTS, *SPLIT_FAULTS) for _ in range(times)]
    train, val = clean_set(folder / "train", len(codes) + 40, seed), clean_set(folder / "val", 2 * times, seed + 1)
    pictures = train.rng.permutation(len(train.images))[: len(codes)]
    for code, place in zip(codes, pictures.tolist()):
        picture = train.images[place]
        train.touch(picture)
        if code in SPLIT_FAULTS:
            named = SPLIT_FAULTS[code](train, val, picture)
            owner = val if code == "picture-alike-across-splits" else train
            owner.planted.add((code, named["file_name"], None))
            owner.touch(named)
        elif code in PICTURE_FAULTS:
            named = PICTURE_FAULTS[code](train, picture) or picture
            train.planted.add((code, named["file_name"], None))
            train.touch(named)
        else:
            rows = train.of(picture)
            row = rows[int(train.rng.integers(len(rows)))]
            named = OBJECT_FAULTS[code](train, picture, row) or row
            train.planted.add((code, picture["file_name"], named["id"]))
    train.write()
    val.write()
    return {"train": train, "val": val}


def judged(sets: Mapping[str, Set], findings: Sequence[Finding]) -> tuple[list[tuple[str, str, int | None]], list[str]]:
    """What was planted and not found, and what was found where nothing was planted."""
    lines: dict[str, list[str]] = {}
    for finding in findings:
        lines.setdefault(finding.kind.code, []).append(f"{finding.where}: {finding.message}: {finding.picture};")
    found = {code: "\n".join(some) for code, some in lines.items()}
    missed = []
    for made in sets.values():
        for code, picture, annotation in sorted(made.planted, key=str):
            who = re.escape(Path(picture).name) if annotation is None else rf"annotation {annotation}\b"
            if not re.search(who, found.get(code, "")):
                missed.append((code, picture, annotation))
    excused = set().union(*(made.touched for made in sets.values()))
    false = [
        str(finding)
        for finding in findings
        if finding.kind.code not in OF_SETS
        and not excused & set(re.findall(r"annotation \d+|(?:train|val)\d{5}", f"{finding.where} {finding.message}"))
    ]
    return missed, false
