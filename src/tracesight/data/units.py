"""Which pictures belong together and must not be parted: those of a group, copies, and those that look the same."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from tracesight.data.dataset import Dataset
from tracesight.data.formats.files import read_text
from tracesight.data.record import Record
from tracesight.errors import UserError


def units_of(count: int, keys: Iterable[Sequence[object]], pairs: Iterable[tuple[int, int]] = ()) -> np.ndarray:
    """(count,) int64: for each picture the position of the first that it belongs together with, in however many steps.

    keys: sequences of a key for each picture; the same key, but None, binds. pairs: positions that belong together.
    """
    first = np.arange(count, dtype=np.int64)

    def top(position: int) -> int:
        while first[position] != position:
            first[position] = first[first[position]]
            position = int(first[position])
        return position

    def join(one: int, other: int) -> None:
        low, high = sorted((top(one), top(other)))
        first[high] = low

    for sequence in keys:
        seen: dict[object, int] = {}
        for position, key in enumerate(sequence):
            if key is not None:
                join(seen.setdefault(key, position), position)
    for one, other in pairs:
        join(one, other)
    return np.array([top(position) for position in range(count)], np.int64)


def groups_of(records: Sequence[Record], rule: str | None) -> list[str | None]:
    """The group of each picture, None where it has none.

    rule: None: what the labels say. "folder": the folder in the picture's name. A file that ends in .csv: its columns
    `name` (or `file`) and `group`. Anything else: a regular expression that is looked for in the picture's name; what
    its groups match, or else the whole match, is the group.
    Raises UserError: the rule cannot be read, or does not fit a single picture.
    """
    if rule is None:
        return [record.group for record in records]
    if rule == "folder":
        return [str(PurePosixPath(record.name).parent) for record in records]
    if rule.lower().endswith(".csv"):
        table = _table(Path(rule))
        found = [table.get(record.name, table.get(PurePosixPath(record.name).name)) for record in records]
    else:
        try:
            expression = re.compile(rule)
        except re.error as error:
            raise UserError(
                f"--group-by {rule}: not a regular expression ({error}); or say folder, or a .csv"
            ) from None
        matches = [expression.search(record.name) for record in records]
        found = [None if m is None else "/".join(g or "" for g in m.groups()) or m.group() for m in matches]
    if not any(group is not None for group in found):
        example = records[0].name if records else "none"
        raise UserError(f"--group-by {rule}: fits no picture; they are called like {example}")
    return found


def with_groups(sets: Mapping[str, Dataset], rule: str | None) -> dict[str, Dataset]:
    """The same sets with the groups that a rule gives their pictures (`groups_of`); None: with those of the labels."""
    if rule is None:
        return dict(sets)
    groups = iter(groups_of([record for dataset in sets.values() for record in dataset], rule))
    return {
        name: dataset.with_records({i: replace(record, group=next(groups)) for i, record in enumerate(dataset)})
        for name, dataset in sets.items()
    }


def _table(path: Path) -> dict[str, str]:
    try:
        rows = list(csv.DictReader(read_text(path).splitlines()))
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: {error}") from None
    names = set(rows[0]) if rows else set()
    name = "name" if "name" in names else "file"
    if not {name, "group"} <= names:
        raise UserError(f"{path}: needs the columns name and group in its first line")
    return {row[name].replace("\\", "/"): row["group"] for row in rows if row[name] and row["group"]}
