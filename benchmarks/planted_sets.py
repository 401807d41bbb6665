"""Faults of a set as a whole, planted one at a time, and faults that only some formats can have."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from planted import CATEGORIES, HEIGHT, WIDTH

from tracesight.data.dataset import Dataset
from tracesight.data.record import Annotation


def _renumbered(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    return dataset.renamed({number - 1: name for number, name in dataset.categories.items()})


def _relabelled(change: Callable[[Annotation], Annotation]) -> Callable[[Dataset, np.random.Generator], Dataset]:
    """One object is another."""

    def plant(dataset: Dataset, rng: np.random.Generator) -> Dataset:
        index = int(rng.integers(len(dataset)))
        record = dataset[index]
        first, *others = record.annotations
        return dataset.with_records({index: replace(record, annotations=(change(first), *others))})

    return plant


def _one_category(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    """All objects are bolts but one."""
    records = {index: replace(record, annotations=tuple(replace(a, category_id=1) for a in record.annotations))
               for index, record in enumerate(dataset)}  # fmt: skip
    return _relabelled(lambda a: replace(a, category_id=2))(dataset.with_records(records), rng)


def _renamed(name: str) -> Callable[[Dataset, np.random.Generator], Dataset]:
    def plant(dataset: Dataset, rng: np.random.Generator) -> Dataset:
        return dataset.with_categories({**dataset.categories, int(rng.integers(2, 4)): name})

    return plant


def _unlabelled(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    index = int(rng.integers(len(dataset)))
    return dataset.with_records({index: replace(dataset[index], annotations=())})


def _long(annotation: Annotation) -> Annotation:
    x, y, _, _ = annotation.box
    return replace(annotation, box=(x, y, x + 30, y + 1.5), segmentation=None)


SET_FAULTS: dict[str, Callable[[Dataset, np.random.Generator], Dataset]] = {
    "anchor-mismatch": _relabelled(_long),
    "category-absent": lambda dataset, rng: dataset.with_categories({**dataset.categories, 9: "screw"}),
    "category-id-0": _renumbered,
    "category-imbalance": _one_category,
    "category-name-twice": _renamed("Bolt "),
    "category-unnamed": _renamed(" "),
    "object-ignored": _relabelled(lambda a: replace(a, crowd=True)),
    "picture-without-objects": _unlabelled,
}


# ---- faults that only other formats can have: planted at a place (0, 1, …) in a folder that was written so


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.rglob(pattern))


def _rewritten(pattern: str, change: Callable[[str], str]) -> Callable[[Path, int], None]:
    def plant(folder: Path, place: int) -> None:
        file = _files(folder, pattern)[place]
        file.write_text(change(file.read_text()))

    return plant


def _removed(pattern: str) -> Callable[[Path, int], None]:
    """The last of the files, so that the next place is another one."""

    def plant(folder: Path, place: int) -> None:
        _files(folder, pattern)[-1].unlink()

    return plant


def _unlisted(folder: Path, place: int) -> None:
    """No list says which pictures there are, and one has no label file."""
    shutil.rmtree(folder / "ImageSets", ignore_errors=True)
    _files(folder, "Annotations/*.xml")[-1].unlink()


def _class_count(folder: Path, place: int) -> None:
    file = folder / "data.yaml"
    file.write_text(re.sub(r"(?m)^nc:.*\n", "", file.read_text()) + f"nc: {len(CATEGORIES) + 1 + place}\n")


def _path_outside(folder: Path, place: int) -> None:
    file = folder / "data.yaml"
    file.write_text(re.sub(r"(?m)^path:.*\n", "", file.read_text()) + f"path: ../elsewhere{place}\n")


def _point(text: str) -> str:
    data = json.loads(text)
    data["shapes"].append({"label": "bolt", "shape_type": "point", "points": [[5, 5]]})
    return json.dumps(data)


def _black_and_white(folder: Path, place: int) -> None:
    """A label map in which all objects are white; before the first, files of objects become maps beside pictures."""
    for item in folder.glob("train/*"):
        numbers = np.zeros((HEIGHT, WIDTH), np.uint8)
        for number, file in enumerate(_files(item / "masks", "*.png"), start=1):
            with Image.open(file) as image:
                numbers[np.asarray(image) > 0] = number
        (picture,) = (item / "images").iterdir()
        picture.rename(folder / picture.name)
        Image.fromarray(numbers).save(folder / f"{picture.stem}_masks.png")
    shutil.rmtree(folder / "train", ignore_errors=True)
    file = _files(folder, "*_masks.png")[place]
    with Image.open(file) as image:
        white = np.asarray(image) > 0
    Image.fromarray((white * 255).astype(np.uint8)).save(file)


FORMAT_FAULTS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "class-count": ("yolo", _class_count),
    "label-file-missing": ("yolo", _removed("labels/**/*.txt")),
    "label-missing": ("voc", _removed("Annotations/*.xml")),
    "mask-black-and-white": ("masks", _black_and_white),
    "path-outside": ("yolo", _path_outside),
    "picture-unlabelled": ("voc", _unlisted),
    "shape-without-area": ("labelme", _rewritten("*.json", _point)),
    "size-missing": ("voc", _rewritten("Annotations/*.xml", lambda text: re.sub(r"(?s)<size>.*</size>", "", text))),
}
ONE_A_SET = {"class-count", "path-outside"}
