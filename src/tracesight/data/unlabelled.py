"""Pictures to learn from without labels: bare folders of millions, and every labelled format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from tracesight.data.dataset import Dataset
from tracesight.data.formats import FORMATS, read_sets
from tracesight.data.formats.files import files_below
from tracesight.data.formats.places import ALL, BARE, Data, Place, places_of
from tracesight.data.pictures import PICTURE_SUFFIXES, picture_size
from tracesight.data.record import Record
from tracesight.errors import UserError

T = TypeVar("T")


class Unreadable:
    """Counts pictures that cannot be read, each once. Raises UserError with the first where there are over `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit, self.count, self.first = limit, 0, ""

    def add(self, reason: str, count: int = 1) -> None:
        """reason: the line that says so of one of them."""
        self.first = self.first or reason
        self.count += count
        if self.count > self.limit:
            raise UserError(
                f"{self.first} (one of {self.count} pictures that cannot be read; broken={self.limit} are passed over)"
            )

    def notes(self) -> list[str]:
        """A sentence about them, if there are any."""
        if not self.count:
            return []
        many = f"{self.count} pictures" if self.count > 1 else "a picture"
        return [f"{many} could not be read and {'were' if self.count > 1 else 'was'} passed over: {self.first}"]


def read_unlabelled(data: Data, format: str | None, unreadable: Unreadable) -> tuple[Dataset, Dataset | None]:
    """(train, val) of a folder, a label file, or {"train": …, "val": …}.

    A bare folder is gone through file by file, and each picture's record is packed as it comes: no list of files is
    made. Of labelled data whatever is wrong with boxes and masks does not matter; labels are kept, for who judges what
    was learnt. val is None where there is none, or where nothing is labelled.
    Raises UserError: nothing there, no pictures, or more that cannot be read than `unreadable` allows.
    """
    places = places_of(data, FORMATS, format)
    if all(place.format == BARE for place in places.values()):
        return _bare(_train(data, places), unreadable), None
    sets, findings = read_sets(data, format)
    train = _train(data, sets)
    for finding in findings:
        if finding.kind.code in ("picture-unreadable", "picture-missing"):
            unreadable.add(str(finding))
    return train, sets.get("val")


def _train(data: Data, sets: Mapping[str, T]) -> T:
    found = sets.get("train", sets.get(ALL))
    if found is None:
        raise UserError(f"{data}: holds {' and '.join(sets)} but no train")
    return found


def _bare(place: Place, unreadable: Unreadable) -> Dataset:
    dataset = Dataset.of(_records(place.path, unreadable), {}, place.path)
    if not len(dataset) and unreadable.count:
        raise UserError(f"{place.path}: none of its pictures can be read, the first: {unreadable.first}")
    if not len(dataset):
        raise UserError(f"{place.path}: no pictures in it ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return dataset


def _records(folder: Path, unreadable: Unreadable) -> Iterator[Record]:
    number = 0
    for path in files_below(folder, PICTURE_SUFFIXES):
        try:
            height, width = picture_size(path)
        except UserError as error:
            unreadable.add(str(error))
            continue
        number += 1
        yield Record(number, path, width, height, name=path.relative_to(folder).as_posix())
