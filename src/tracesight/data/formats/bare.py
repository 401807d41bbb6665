"""A bare folder of pictures: nothing is said about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tracesight.data.dataset import Dataset
from tracesight.data.formats.files import files_below, files_in, folders_in, is_ours, pictures_below
from tracesight.data.formats.image_folder import NOT_CATEGORIES
from tracesight.data.formats.losses import losses
from tracesight.data.formats.places import folder_of
from tracesight.data.formats.placing import Names, place, renamed
from tracesight.data.formats.reading import Format, Reading, bad_picture
from tracesight.data.formats.yolo_places import has_labels
from tracesight.data.pictures import PICTURE_SUFFIXES, picture_size
from tracesight.data.record import Record
from tracesight.errors import UserError

# Files that may hold labels of some format, read here or not: a folder with one of them is not bare.
TELLING = frozenset({
    ".csv", ".h5", ".hdf5", ".json", ".jsonl", ".mat", ".ndjson", ".npy", ".npz", ".parquet", ".tsv", ".xml", ".yaml",
    ".yml",
})  # fmt: skip
LABEL_FOLDERS = NOT_CATEGORIES - {"images", "jpegimages"}


def read_bare(path: Path, split: str | None = None) -> Reading:
    """Every picture in a folder and below it, without labels. Raises UserError where there is none."""
    pictures = pictures_below(path)
    if not pictures:
        raise UserError(f"{path}: no pictures in it ({', '.join(sorted(PICTURE_SUFFIXES))})")
    reading = Reading(path, {}, iter(()))
    reading.records = _records(reading, pictures)
    return reading


def fits_bare(path: Path) -> bool:
    """Whether a folder holds pictures, itself or in one folder, and no file that may hold labels of any format."""
    if not path.is_dir() or _tells(path) or has_labels(path):
        return False
    folders = folders_in(path)
    inner = [child for folder in folders for child in (folder, *folders_in(folder))]
    if any(map(_tells, folders)) or any(f.name.lower() in LABEL_FOLDERS for f in inner):
        return False
    if files_in(path, PICTURE_SUFFIXES):
        return not any(file.stem.endswith("_masks") for file in files_in(path, PICTURE_SUFFIXES))
    return len(folders) == 1 and any(files_below(folders[0], PICTURE_SUFFIXES))


def _tells(folder: Path) -> bool:
    return any(not is_ours(file) for file in files_in(folder, TELLING))


def write_bare(sets: Mapping[str, Dataset], folder: Path) -> list[str]:
    """The pictures alone, a folder a set."""
    given: list[tuple[str, str]] = []
    for split, dataset in sets.items():
        taken: Names = {}
        for record in dataset:
            place(record, folder_of(folder, split), taken)
        given += taken.values()
    return [*losses(sets, "pictures", set()), *renamed(given, "pictures")]


def _records(reading: Reading, pictures: Sequence[Path]) -> Iterator[Record]:
    number = 0
    for path in pictures:
        try:
            height, width = picture_size(path)
        except UserError as error:
            reading.faults.append(bad_picture(error, path))
            continue
        number += 1
        yield Record(number, path, width, height, name=path.relative_to(reading.path).as_posix())


FORMAT = Format(fits_bare, lambda _: (), read_bare, write_bare)
