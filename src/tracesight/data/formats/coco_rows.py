"""What a COCO file holds, packed: the rows of its arrays as bytes in the order of the file, and who they belong to."""

from __future__ import annotations

import marshal
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tracesight.data.formats.json_rows import scan_rows
from tracesight.errors import UserError

NEEDED = ("images", "annotations", "categories")

# Polygons stay text, under a key of their own: to parse all of their numbers would take longer than all the rest. Only
# what is well-formed and of three or more points is kept so; the rest is parsed, and what is wrong with it found.
POLYGONS = "segmentation as text"
_NUMBER = r"-?+(?:0|[1-9]\d*+)(?:\.\d++)?+"
_PAIR = rf"{_NUMBER},\s*+{_NUMBER}"
_PART = rf"\[\s*+{_PAIR}(?:,\s*+{_PAIR}){{2,}}+\s*+\]"
_SEGMENTATION = re.compile(rf'"segmentation"\s*+:\s*+(\[\s*+{_PART}(?:\s*+,\s*+{_PART})*+\s*+\])', re.ASCII)


def keep_polygons(text: str) -> str:
    """JSON with well-formed polygons made strings. Inside a string the quotes before them would be escaped."""
    return _SEGMENTATION.sub(rf'"{POLYGONS}":"\1"', text)


@dataclass
class Packed:
    """Rows of one array, written one after another as bytes. Python objects would take ten times their memory."""

    content: bytearray = field(default_factory=bytearray)
    starts: array[int] = field(default_factory=lambda: array("q", [0]))

    def add(self, row: Any) -> None:
        self.content += marshal.dumps(row)
        self.starts.append(len(self.content))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> Any:
        return marshal.loads(memoryview(self.content)[self.starts[index] : self.starts[index + 1]])

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


@dataclass
class Rows:
    """The arrays of a COCO file.

    pictures: a number from 0 for every image_id that annotations have. owners: for each annotation that number, -1
    where it has none. ids: of annotations. twice, nameless: positions of annotations whose id is not the first of its
    kind, or none at all.
    """

    images: Packed = field(default_factory=Packed)
    annotations: Packed = field(default_factory=Packed)
    categories: list[dict[str, Any]] = field(default_factory=list)
    licences: list[Any] = field(default_factory=list)
    pictures: dict[Any, int] = field(default_factory=dict)
    owners: array[int] = field(default_factory=lambda: array("i"))
    ids: set[int | str] = field(default_factory=set)
    twice: list[int] = field(default_factory=list)
    nameless: list[int] = field(default_factory=list)

    def add_annotation(self, row: Any) -> None:
        if not isinstance(row, dict):
            raise ValueError("'annotations' must be a list of objects")
        number, picture = row.get("id"), row.get("image_id")
        owner = -1
        if number is None or type(number) not in (int, str):
            self.nameless.append(len(self.owners))
        else:
            if number in self.ids:
                self.twice.append(len(self.owners))
            self.ids.add(number)
            owner = self.pictures.setdefault(picture if type(picture) is int else repr(picture), len(self.pictures))
        self.owners.append(owner)
        self.annotations.add(row)

    def add_image(self, row: Any) -> None:
        if not isinstance(row, dict):
            raise ValueError("'images' must be a list of objects")
        self.images.add(row)

    def add_category(self, row: Any) -> None:
        if not isinstance(row, dict):
            raise ValueError("'categories' must be a list of objects")
        self.categories.append(row)

    def owner_array(self) -> np.ndarray:
        """`owners` as (annotations,) int32."""
        return np.array(self.owners, np.int32)

    def by_picture(self) -> tuple[np.ndarray, np.ndarray]:
        """order (annotations,), sorted by picture and else as in the file; starts (pictures + 1,), each one's first.

        Those of no picture come first of all and belong to none of the starts.
        """
        owners = self.owner_array()
        order = np.argsort(owners, kind="stable")
        starts = np.searchsorted(owners[order], np.arange(len(self.pictures) + 1))
        return order, starts


def rows_of(path: Path) -> Rows:
    """Read a file once. Raises UserError: not JSON, not COCO's arrays, or not to be read at all."""
    rows = Rows()
    take = {
        "images": rows.add_image, "annotations": rows.add_annotation, "categories": rows.add_category,
        "licenses": rows.licences.append,
    }  # fmt: skip
    try:
        keys = scan_rows(path, take, keep_polygons)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        message = " ".join(str(error).split())
        coco = message.startswith("'")
        raise UserError(f"{path}: not COCO instances: {message}" if coco else f"{path}: not JSON ({message})") from None
    missing = [key for key in NEEDED if key not in keys]
    if missing:
        raise UserError(f"{path}: not COCO instances: it has no {missing[0]!r}")
    return rows
