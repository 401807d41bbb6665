"""Labelled pictures from files: which format it is, where its sets are, and each set read, checked and mended.

One format a file; `FORMATS` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from tracesight.data.checks.labels import LABEL_CHECKS, checked
from tracesight.data.dataset import Dataset
from tracesight.data.finding import Finding, notes_of, refuse
from tracesight.data.formats import bare, coco, image_folder, labelme, masks, voc, yolo
from tracesight.data.formats.places import ALL, Data, Place, one_place, places_of
from tracesight.data.formats.placing import written_whole
from tracesight.data.formats.reading import Format, Reading
from tracesight.data.many import no_collection
from tracesight.data.record import Record
from tracesight.data.split import keyed_split
from tracesight.errors import UserError

FORMATS: dict[str, Format] = {
    "coco": coco.FORMAT,
    "voc": voc.FORMAT,
    "yolo": yolo.FORMAT,
    "imagefolder": image_folder.FORMAT,
    "labelme": labelme.FORMAT,
    "masks": masks.FORMAT,
    "pictures": bare.FORMAT,
}


def read_dataset(
    path: Path | str, format: str | None = None, split: str | None = None, allow: Sequence[str] = ()
) -> Dataset:
    """Read one set of labelled pictures: a label file, or a folder that holds labels beside its pictures.

    format: a key of `FORMATS`; without it the format is recognised. split: which part, where the place has several;
    written into every record. allow: codes of errors that are put right or left out instead of raised.
    What was put right is counted in `notes`. Raises UserError: nothing there, nothing recognised, or the first error.
    """
    dataset, findings = read_place(one_place(path, FORMATS, format, split), split)
    refuse(findings, allow)
    return dataset


def read_sets(data: Data, format: str | None = None) -> tuple[dict[str, Dataset], list[Finding]]:
    """Every set of the data by name (train, val, test, or "all"), put right, and all that is wrong with its labels.

    Raises UserError only for what cannot be read at all.
    """
    sets, findings = {}, []
    for name, place in places_of(data, FORMATS, format).items():
        sets[name], found = read_place(place, None if name == ALL else name)
        findings += found
    if any(dataset.numbered for dataset in sets.values()):
        names = sorted({name for dataset in sets.values() for name in dataset.categories.values()})
        every = dict(enumerate(names, start=1))
        sets = {name: dataset.renamed(every) if dataset.numbered else dataset for name, dataset in sets.items()}
    return sets, findings


def read_splits(
    data: Data,
    seed: int,
    format: str | None = None,
    allow: Sequence[str] = (),
    needs: Literal["objects", "image labels"] = "objects",
) -> tuple[Dataset, Dataset | None, list[str]]:
    """(train, val, notes) of a data folder, a label file, or {"train": …, "val": …}.

    Without val, a fifth of the pictures is held out, keyed by `seed`; val is None where there is one picture only.
    allow: codes of errors that are put right or left out instead of raised. needs: what is to be learned from; objects
    do for "image labels" too. Notes say what was decided or is odd.
    Raises UserError: the first error in the data, among others where there is nothing to learn from.
    """
    sets, findings = read_sets(data, format)
    refuse(findings, allow)
    train = sets.get("train", sets.get(ALL))
    if train is None:
        raise UserError(f"{data}: holds {' and '.join(sets)} but no train")
    notes = list(train.notes)
    if not any(not a.ignored for record in train for a in record.annotations):
        whole = any(record.labels for record in train)
        if needs == "objects" or not whole:
            why = "only labels of whole pictures: use --task classify" if whole else "label some pictures first"
            raise UserError(f"{train.path}: no objects at all to learn from; {why}")
    val = sets.get("val")
    if val is not None:
        val = _same_categories(train, val)
        notes += val.notes
    else:
        train, val = keyed_split(train, seed)
        if val is None:
            notes.append(f"{_name(train.path)}: one picture only, so nothing is held out and no figure can be given")
        else:
            notes.append(f"no val: {len(val)} of {len(train) + len(val)} pictures held out by seed {seed}")
    return train, val, [*notes, *_odd_sets(train, val)]


def write_sets(sets: Mapping[str, Dataset], folder: Path | str, format: str) -> list[str]:
    """Write sets by name (train, val, test, or "all" where there is one) into a new folder, pictures byte for byte.

    Returns what this format cannot say, one sentence each. Raises UserError: `folder` is not empty or cannot be
    written, the format is not known or only read, a picture is missing. Nothing is left of what failed half-way.
    """
    write = writer_of(format)
    with written_whole(Path(folder)) as part:
        return write(sets, part)


def writer_of(format: str) -> Callable[[Mapping[str, Dataset], Path], list[str]]:
    """`Format.write` of a format. Raises UserError: it is not known, or only read."""
    if format not in FORMATS:
        raise UserError(f"format {format!r} is not known; use one of {', '.join(FORMATS)}")
    write = FORMATS[format].write
    if write is None:
        raise UserError(
            f"format {format!r} can only be read; use one of {', '.join(n for n in FORMATS if FORMATS[n].write)}"
        )
    return write


def read_place(place: Place, split: str | None) -> tuple[Dataset, list[Finding]]:
    """One set, put right, and what was wrong with its labels. split: written into every record."""
    findings: list[Finding] = []
    with no_collection():
        reading = FORMATS[place.format].read(place.path, place.split)
        dataset = Dataset.of(
            _sound(reading, split, findings), reading.categories, reading.path, numbered=reading.numbered,
            keypoints=reading.keypoints, parents=reading.parents, about=reading.about,
        )  # fmt: skip
    found = [*reading.faults, *findings]  # complete, as the records have been drawn
    if not len(dataset):
        refuse(found)
        raise UserError(f"{reading.path}: no pictures in it")
    if dataset.numbered:
        dataset = dataset.renamed(dict(enumerate(sorted(dataset.categories.values()), start=1)))
    return dataset.with_notes(notes_of(found, _name(reading.path))), found


def _sound(reading: Reading, split: str | None, findings: list[Finding]) -> Iterator[Record]:
    for record in reading.records:
        sound, found = checked(record, reading.categories, reading.path, LABEL_CHECKS, reading.keypoints)
        findings += found
        if split is not None:
            object.__setattr__(sound, "split", split)  # it is not anybody else's yet
        yield sound


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


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
        notes.append(f"{_name(train.path)}: one picture only to train on")
    for name, dataset in (("train", train), ("val", val)):
        if dataset is None:
            continue
        present = {a.category_id for record in dataset for a in record.annotations if not a.ignored}
        present |= {number for record in dataset for number in record.labels}
        absent = [dataset.categories[number] for number in dataset.category_ids if number not in present]
        if absent:
            shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
            notes.append(f"{name} holds no example of {shown}")
    return notes
