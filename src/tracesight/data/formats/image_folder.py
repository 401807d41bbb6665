"""ImageFolder: a folder a category, and in it, or further down, pictures that show it as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tracesight.data.dataset import Dataset
from tracesight.data.finding import Finding
from tracesight.data.formats.files import files_below, files_in, folders_in, is_ours, pictures_below
from tracesight.data.formats.losses import counted, losses
from tracesight.data.formats.places import folder_of
from tracesight.data.formats.placing import Names, folder_names, place, renamed
from tracesight.data.formats.reading import UNLABELLED, Format, Numbers, Reading, bad_picture
from tracesight.data.pictures import PICTURE_SUFFIXES, picture_size
from tracesight.data.record import Record
from tracesight.errors import UserError

# Folders that mean something in another format, and files that hold labels.
NOT_CATEGORIES = frozenset({
    "annotations", "imagesets", "images", "jpegimages", "labels", "masks", "segmentationclass", "segmentationobject",
})  # fmt: skip
LABEL_SUFFIXES = frozenset({".json", ".xml", ".yaml", ".yml"})


def read_image_folder(path: Path, split: str | None = None) -> Reading:
    """Read a folder of folders: each that holds pictures is a category, named by its path (`cat`, `animals/cat`).

    Pictures beside the folders are left out. Raises UserError where there are no folders with pictures.
    """
    pictures = [(file.relative_to(path).as_posix(), file) for file in pictures_below(path)]
    reading = Reading(path, {}, iter(()), numbered=True)
    reading.records = _records(reading, [(name, file) for name, file in pictures if "/" in name])
    for name, file in pictures:
        if "/" not in name:
            reading.faults.append(Finding(UNLABELLED, str(file), "it lies in no category's folder", file))
    if len(reading.faults) == len(pictures):
        raise UserError(f"{path}: no imagefolder labels in it (folders named by category, with pictures)")
    return reading


def fits_image_folder(path: Path) -> bool:
    """Whether a folder holds two or more folders of pictures, and nothing that another format would have."""
    if not path.is_dir() or _holds_labels(path) or files_in(path, PICTURE_SUFFIXES):
        return False
    categories = 0
    for folder in folders_in(path):
        first = next(files_below(folder, PICTURE_SUFFIXES), None)
        names = [
            folder.name,
            *(f.name for f in folders_in(folder)),
            *(first.relative_to(folder).parts if first else ()),
        ]
        if any(name.lower() in NOT_CATEGORIES for name in names):
            return False
        if first is not None and any(map(_holds_labels, {folder, first.parent})):
            return False
        categories += first is not None
    return categories >= 2


def _holds_labels(folder: Path) -> bool:
    return any(not is_ours(file) for file in files_in(folder, LABEL_SUFFIXES))


def write_image_folder(sets: Mapping[str, Dataset], folder: Path) -> list[str]:
    """A folder a category for each set. Folders inside a category would be categories, so that names lose theirs.

    Raises UserError where no picture has a category.
    """
    counts: Counter[str] = Counter()
    given: list[tuple[str, str]] = []
    folders: list[tuple[str, str]] = []
    for split, dataset in sets.items():
        places, taken = folder_names(dataset.categories), Names()
        folders += [(dataset.categories[number], name) for number, name in places.items()]
        for record in dataset:
            counts["without"] += not record.labels
            counts["several"] += len(record.labels) > 1
            if record.labels:
                category = places[record.labels[0]]
                name = record.name.removeprefix(f"{dataset.categories[record.labels[0]]}/").replace("/", "_")
                place(record, folder_of(folder, split), taken, f"{category}/{name}")
                counts["written"] += 1
        given += taken.values()
    if not counts["written"]:
        raise UserError("no picture has a category as a whole, and imagefolder has no place for objects")
    return [
        *losses(sets, "imagefolder", {"categories of a picture as a whole"}, named=True),
        *counted(counts["without"], "imagefolder has no place for pictures without a category: {} left out"),
        *counted(counts["several"], "imagefolder has one category a picture: the others of {} pictures left out"),
        *renamed(given, "pictures"),
        *renamed(folders, "categories"),
    ]


def _records(reading: Reading, pictures: Sequence[tuple[str, Path]]) -> Iterator[Record]:
    numbers, number = Numbers(reading.categories), 0
    for name, path in pictures:
        category = numbers[name.rsplit("/", 1)[0]]
        try:
            height, width = picture_size(path)
        except UserError as error:
            reading.faults.append(bad_picture(error, path))
            continue
        number += 1
        yield Record(number, path, width, height, name=name, labels=(category,))


FORMAT = Format(fits_image_folder, lambda _: (), read_image_folder, write_image_folder)
