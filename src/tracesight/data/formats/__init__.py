"""Which format a folder or file is, and where its train and val are.

One reader a file; `FORMATS` names them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from tracesight.data.formats.coco import read_coco
from tracesight.data.record import Dataset
from tracesight.data.split import keyed_split
from tracesight.errors import UserError

FORMATS: dict[str, Callable[..., Dataset]] = {"coco": read_coco}

_TRAIN, _VAL = ("train",), ("val", "valid", "validation")


def read_dataset(path: Path | str, format: str | None = None, split: str | None = None) -> Dataset:
    """Read one set of labelled pictures: a label file, or a folder that holds one beside its pictures.

    format: a key of `FORMATS`; without it the format is recognised. split: written into every record.
    Raises UserError: nothing there, nothing recognised, or more than one label file to choose from.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise UserError(f"format {format!r} is not known; use one of {', '.join(sorted(FORMATS))}")
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    file = _label_file(path) if path.is_dir() else path
    if format is None and file.suffix.lower() != ".json":
        raise UserError(f"{file}: labels of this kind cannot be read yet; give COCO instances (a .json file)")
    return FORMATS[format or "coco"](file, split=split)


def read_splits(data: Path | str | Mapping[str, Path | str], seed: int) -> tuple[Dataset, Dataset | None, list[str]]:
    """(train, val, notes) of a data folder, a label file, or {"train": …, "val": …}.

    A folder may hold `train` and `val`, each with pictures and a COCO file, or COCO's `annotations/instances_*.json`.
    Without val, a fifth of the pictures is held out, keyed by `seed`; val is None where there is one picture only.
    Notes say what was decided or is odd. Raises UserError, among others where there are no objects to learn from.
    """
    train_path, val_path = _places(data)
    train = read_dataset(train_path, split="train")
    notes = list(train.notes)
    if not any(not a.crowd for record in train for a in record.annotations):
        raise UserError(f"{train.path}: no objects at all to learn from; label some pictures first")
    if val_path is not None:
        val = _same_categories(train, read_dataset(val_path, split="val"))
        notes += val.notes
    else:
        train, val = keyed_split(train, seed)
        if val is None:
            name = f"{train.path.parent.name}/{train.path.name}"
            notes.append(f"{name}: one picture only, so nothing is held out and no figure can be given")
        else:
            notes.append(f"no val: {len(val)} of {len(train) + len(val)} pictures held out by seed {seed}")
    return train, val, [*notes, *_odd_sets(train, val)]


def _label_file(folder: Path) -> Path:
    """The one label file of a folder."""
    files = sorted(folder.glob("*.json"))
    if not files:
        if any((folder / "annotations").glob("*.json")):
            raise UserError(f"{folder}: give the one file of {folder / 'annotations'} that you mean")
        inner = [name for name in (*_TRAIN, *_VAL) if (folder / name).is_dir()]
        if inner:
            raise UserError(f"{folder}: holds {' and '.join(inner)}; give one of them, as in {folder / inner[0]}")
        raise UserError(f"{folder}: no label file in it; put COCO instances (a .json file) beside the pictures")
    if len(files) == 1:
        return files[0]
    likely = [file for file in files if _looks_like_coco(file)]
    if len(likely) == 1:
        return likely[0]
    names = ", ".join(file.name for file in files[:5]) + (", …" if len(files) > 5 else "")
    raise UserError(f"{folder}: {len(files)} label files ({names}); give the path of the one you mean")


def _looks_like_coco(file: Path) -> bool:
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and all(key in data for key in ("images", "annotations", "categories"))


def _places(data: Path | str | Mapping[str, Path | str]) -> tuple[Path, Path | None]:
    """Where train and val are."""
    if isinstance(data, Mapping):
        unknown = sorted(set(data) - {"train", "val"})
        if unknown or "train" not in data:
            raise UserError(f"data must be given as train=… val=…, not {unknown[0] if unknown else 'without train'}")
        return Path(data["train"]), Path(data["val"]) if data.get("val") else None
    path = Path(data)
    if not path.is_dir():
        return path, None  # a label file; read_dataset says so where it is not there
    if not any(path.iterdir()):
        raise UserError(f"{path}: the folder is empty; put train and val folders with pictures and labels into it")
    train = next((path / name for name in _TRAIN if (path / name).is_dir()), None)
    val = next((path / name for name in _VAL if (path / name).is_dir()), None)
    # COCO's own layout also has a folder train/ at times, with pictures only.
    found = _coco_layout(path)
    if found is not None:
        return found
    if train is not None:
        return train, val
    if val is not None:
        raise UserError(f"{path}: holds {val.name} but no train; add {path / 'train'}")
    return path, None


def _coco_layout(path: Path) -> tuple[Path, Path | None] | None:
    """`annotations/instances_train*.json` and `instances_val*.json`, where they are."""
    files = {name: sorted((path / "annotations").glob(f"instances_{name}*.json")) for name in ("train", "val")}
    for name, candidates in files.items():
        if len(candidates) > 1:
            names = ", ".join(file.name for file in candidates)
            raise UserError(f"{path / 'annotations'}: {names}: give the one you mean as {name}=FILE")
    if not files["train"]:
        return None
    return files["train"][0], files["val"][0] if files["val"] else None


def _same_categories(train: Dataset, val: Dataset) -> Dataset:
    """`val` under the categories of `train`. Raises UserError where an id means something else or nothing there."""
    for number, name in val.categories.items():
        known = train.categories.get(number)
        if known is None:
            raise UserError(f"{val.path}: category {number} ({name}) is not among those of {train.path}")
        if known != name:
            raise UserError(f"{val.path}: category {number} is {name!r}, but {known!r} in {train.path}")
    return val.with_categories(train.categories)


def _odd_sets(train: Dataset, val: Dataset | None) -> list[str]:
    """Warnings about what a set lacks."""
    notes = []
    if len(train) == 1 and val is not None:
        notes.append(f"{train.path.parent.name}/{train.path.name}: one picture only to train on")
    for name, dataset in (("train", train), ("val", val)):
        if dataset is None:
            continue
        present = {a.category_id for record in dataset for a in record.annotations if not a.crowd}
        absent = [dataset.categories[number] for number in dataset.category_ids if number not in present]
        if absent:
            shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
            notes.append(f"{name} holds no example of {shown}")
    return notes
