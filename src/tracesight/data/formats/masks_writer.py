"""Masks out: `ID/images/` and `ID/masks/` for each picture, one file an object, so that objects may overlap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from PIL import Image

from tracesight.data.dataset import Dataset
from tracesight.data.formats.losses import counted, losses
from tracesight.data.formats.outlines import APART
from tracesight.data.formats.places import folder_of
from tracesight.data.formats.placing import Names, folder_names, free_name, place, renamed
from tracesight.data.record import Record

OBJECT = "object"
KEPT = {"objects", "masks of objects", "the mark of crowds", "the mark of difficult objects"}


def write_masks(sets: Mapping[str, Dataset], folder: Path) -> list[str]:
    """Write each set into a folder of its own. Categories are folders in `masks`, unless the only one is "object".

    Crowds and difficult objects are left out, as the format cannot say that they are no objects to learn.
    """
    counts: Counter[str] = Counter()
    alone = {name for dataset in sets.values() for name in dataset.categories.values()} == {OBJECT}
    given: list[tuple[str, str]] = []
    folders: list[tuple[str, str]] = []
    for split, dataset in sets.items():
        places, taken = folder_names(dataset.categories), Names()
        folders += [] if alone else [(dataset.categories[number], name) for number, name in places.items()]
        for record in dataset:
            stem = PurePosixPath(free_name(record.name, taken)).with_suffix("")
            home = folder_of(folder, split) / stem
            place(record, home / "images", {}, f"{stem.name}{record.path.suffix}")
            _write(record, home / "masks", None if alone else places, counts)
        given += taken.values()
    return [
        *losses(sets, "masks", KEPT, named=True),
        *counted(counts["without"], "masks has no place for objects without a mask: {} left out"),
        *counted(counts["ignored"], "masks has no place for crowds and difficult objects: {} objects left out"),
        *counted(counts["moved"], "masks has no boxes of their own: {} became those around their masks"),
        *renamed(given, "pictures"),
        *renamed(folders, "categories"),
    ]


def _write(record: Record, folder: Path, places: Mapping[int, str] | None, counts: Counter[str]) -> None:
    folder.mkdir(parents=True)
    for number, annotation in enumerate(record.annotations, start=1):
        mask = None if annotation.ignored else annotation.mask(record.height, record.width)
        if mask is None or not mask.area:
            counts["ignored" if annotation.ignored else "without"] += 1
            continue
        counts["moved"] += max(abs(a - b) for a, b in zip(mask.box, annotation.box)) > APART
        home = folder if places is None else folder / places[annotation.category_id]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.to_array()).save(home / f"{number:04}.png")
