"""What a format is to the rest of the package: four functions, and what its reader gives.

A reader takes labels as they are: it checks that a file is what it should be and that what refers to something refers
to something that is there, and leaves sizes, boxes and masks to `data/checks`. What it cannot read it leaves out and
adds to `faults`; it raises UserError only where nothing can be read at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tracesight.data.checks import picture_missing, picture_unreadable
from tracesight.data.dataset import Dataset
from tracesight.data.finding import Finding, Kind
from tracesight.data.pictures import picture_size
from tracesight.data.points import Keypoints
from tracesight.data.record import Record
from tracesight.errors import UserError


@dataclass
class Reading:
    """A set half-way between its files and a `Dataset`.

    path: the file or folder that holds the labels. records: in the order of the set; drawn once. categories: name by
    id; complete once the records have been drawn. numbered: the labels have names only (`Numbers`); who reads them
    through `formats` gets the ids 1, 2, … of the sorted names. faults: what was left out; grows while records are
    drawn. keypoints, parents, about: as `Dataset` has them.
    """

    path: Path
    categories: dict[int, str]
    records: Iterator[Record]
    numbered: bool = False
    faults: list[Finding] = field(default_factory=list)
    keypoints: dict[int, Keypoints] = field(default_factory=dict)
    parents: dict[int, str] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)


class Numbers(dict[str, int]):
    """Ids by name for labels that have names only, given as names come up and written into `categories`."""

    def __init__(self, categories: dict[int, str]) -> None:
        super().__init__()
        self.categories = categories

    def __missing__(self, name: str) -> int:
        number = self[name] = len(self) + 1
        self.categories[number] = name
        return number


@dataclass(frozen=True)
class Format:
    """One way of writing labels.

    fits: whether a file or folder holds labels of this format, told without reading it whole.
    splits: the parts among "train", "val", "test" that the format itself divides the place into; () where it is one
        set. That `train/` and `val/` are folders is no business of a format.
    read: the place and one of its splits (None: where there are none).
    write: parts by split name ("all" where there is one) and an empty folder; what cannot be said in this format, one
        sentence each. None: the format cannot be written.
    """

    fits: Callable[[Path], bool]
    splits: Callable[[Path], Sequence[str]]
    read: Callable[[Path, str | None], Reading]
    write: Callable[[Mapping[str, Dataset], Path], list[str]] | None = None


UNREADABLE = Kind("label-unreadable", "error", "labels that cannot be read", "correct or remove it", "left out")
NO_PICTURE = Kind(
    "annotation-without-picture", "error", "labels whose picture is not there", "restore the picture or remove the "
    "labels", "left out",
)  # fmt: skip
PICTURE_ID = Kind("picture-id-twice", "error", "picture ids that occur twice", "give each picture its own", "left out")
ANNOTATION_ID = Kind(
    "annotation-id-twice", "error", "annotation ids that occur twice", "give each annotation its own", "numbered anew"
)
OUTSIDE_FOLDER = Kind(
    "picture-outside-folder", "error", "pictures that lie outside the folder", "make the path relative, inside it",
    "left out",
)  # fmt: skip
NO_LABELS = Kind(
    "label-missing", "error", "pictures whose label file is not there", "restore it or take the picture off the list",
    "left out",
)  # fmt: skip
NO_FILE, BAD_PICTURE = picture_missing.KIND, picture_unreadable.KIND


def bad_picture(error: UserError, picture: Path, labels: Path | None = None) -> Finding:
    """What `pictures.py` says of a picture that cannot be read; labels: the file that refers to it, if it is another.

    Its remedy is what stands behind the last semicolon.
    """
    text = str(error).removeprefix(f"{picture}: ") if labels is None else str(error)
    what, _, remedy = text.rpartition("; ")
    return Finding(BAD_PICTURE, str(labels or picture), what or remedy, picture, remedy=remedy if what else None)


def size_of_picture(faults: list[Finding], file: Path, picture: Path) -> tuple[int, int] | None:
    """(width, height) of a picture whose label file does not say; None where it cannot be read. Either is a fault."""
    try:
        height, width = picture_size(picture)
    except UserError as error:
        faults.append(bad_picture(error, picture, file))
        return None
    faults.append(Finding(NO_SIZE, str(file), "it does not say how large the picture is", picture))
    return width, height


UNLABELLED = Kind(
    "picture-unlabelled", "warning", "pictures that no label file speaks of", "label them or take them away", "left out"
)
NO_SIZE = Kind(
    "size-missing", "warning", "label files that do not say how large their picture is", "nothing need be done",
    "taken from the picture",
)  # fmt: skip
