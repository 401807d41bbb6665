"""Which format a file or folder is, and where its train, val and test are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tracesight.data.formats.files import files_in, folders_in
from tracesight.data.formats.reading import Format
from tracesight.data.pictures import PICTURE_SUFFIXES
from tracesight.errors import UserError

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
ALL = "all"  # the name of what is not divided
CLASSES, BARE = "imagefolder", "pictures"  # formats of folders, which the folder of a set looks like

Data = Path | str | Mapping[str, Path | str]


@dataclass(frozen=True)
class Place:
    """One set of labelled pictures: `FORMATS[format].read(path, split)` reads it."""

    format: str
    path: Path
    split: str | None = None


def places_of(data: Data, formats: Mapping[str, Format], format: str | None = None) -> dict[str, Place]:
    """The sets of a data folder, a label file, or {"train": …, "val": …}, by name: train, val, test, or "all".

    format: a key of `formats`; without it the format is recognised.
    Raises UserError: nothing there, nothing recognised, or two formats that fit.
    """
    if format is not None and format not in formats:
        raise UserError(f"format {format!r} is not known; use one of {', '.join(formats)}")
    if isinstance(data, Mapping):
        unknown = sorted(set(data) - set(SPLITS))
        if unknown or "train" not in data:
            raise UserError(f"data must be given as train=… val=…, not {unknown[0] if unknown else 'without train'}")
        return {name: one_place(path, formats, format, name) for name, path in data.items() if path}
    path = Path(data)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    files_in(path, ())  # which says so where it may not be read
    fitting = [name for name in formats if formats[name].fits(path)] if format is None else [format]
    if len(fitting) > 1:
        fitting = [name for name in fitting if name != BARE]  # which is what it is if it is nothing else
    if len(fitting) > 1:
        raise UserError(f"{path}: could be {' or '.join(fitting)}; say which with --format")
    for name in fitting:
        if splits := formats[name].splits(path):
            return {split: Place(name, path, split) for split in splits}
    folders = _folders(path) if path.is_dir() else {}
    if folders and not (format == CLASSES and list(folders) == ["train"] and _beside(folders["train"])):
        return _places_in(path, folders, formats, format)
    if not fitting:
        raise _nothing(path, formats)
    return {ALL: Place(fitting[0], path)}


def one_place(path: Path | str, formats: Mapping[str, Format], format: str | None, split: str | None) -> Place:
    """The one set at `path`; of several parts the one called `split`. Raises UserError where that is not clear."""
    places = places_of(path, formats, format)
    if ALL in places:
        return places[ALL]
    if split in places:
        return places[split]
    if split is None and len(places) == 1:
        return next(iter(places.values()))
    names = " and ".join(places)
    raise UserError(f"{path}: holds {names}; give one of them, {'' if split is None else f'not {split}, '}by its name")


def folder_of(folder: Path, split: str) -> Path:
    """Where a set of this name is written, in formats that give each set a folder."""
    return folder if split == ALL else folder / split


def _places_in(
    path: Path, folders: Mapping[str, Path], formats: Mapping[str, Format], format: str | None
) -> dict[str, Place]:
    """The set in each folder of a split."""
    if "train" not in folders:
        found = next(iter(folders.values()))
        raise UserError(f"{path}: holds {found.name} but no train; add {path / 'train'}")
    if list(folders) == ["train"] and (other := _beside(folders["train"])):
        raise UserError(
            f"{path}: is train a set or a category, like {other.name} beside it? Give {folders['train']}, "
            f"or say --format {CLASSES}"
        )
    places = {split: one_place(folder, formats, format, None) for split, folder in folders.items()}
    labelled = next((split for split, place in places.items() if place.format != BARE), None)
    bare = next((split for split in ("train", "val") if split in places and places[split].format == BARE), None)
    if format is None and labelled is not None and bare is not None:
        raise UserError(f"{places[bare].path}: no labels of a known format in it, unlike {places[labelled].path}")
    return places


def _beside(folder: Path) -> Path | None:
    """A folder of pictures beside this one, if this holds pictures itself, as categories in ImageFolder do."""
    if not files_in(folder, PICTURE_SUFFIXES):
        return None
    return next((f for f in folders_in(folder.parent) if f != folder and files_in(f, PICTURE_SUFFIXES)), None)


def _folders(path: Path) -> dict[str, Path]:
    """The folders of a split inside `path`."""
    found = {}
    for split, names in SPLITS.items():
        folder = next((path / name for name in names if (path / name).is_dir()), None)
        if folder is not None:
            found[split] = folder
    return found


def _nothing(path: Path, formats: Mapping[str, Format]) -> UserError:
    if path.is_file():
        return UserError(f"{path}: not labels of a known format ({', '.join(formats)})")
    if not any(path.iterdir()):
        return UserError(
            f"{path}: the folder is empty; put pictures into it, to learn from labels in folders train and val"
        )
    return UserError(f"{path}: no labels of a known format in it ({', '.join(formats)})")
