"""The course of a run: history.csv, one row an update and one a validation, cut back on resume."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path


class History:
    """Rows appended to a CSV file as they come; cells that a row does not have stay empty.

    Args:
        path: the file; rows after `step` are cut off, so that a resumed run writes them anew.
        columns: names of the columns; the first is `step`, the number of updates made.
        step: updates made so far; 0 begins a new file.
    """

    def __init__(self, path: Path, columns: Sequence[str], step: int = 0) -> None:
        self.path, self.columns = path, tuple(columns)
        kept = [row for row in read_history(path) if row["step"] <= step] if step and path.exists() else []
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows([_cell(row.get(name)) for name in self.columns] for row in kept)

    def add(self, **row: float | None) -> None:
        """Append one row. Raises KeyError for a name that is not a column."""
        if unknown := row.keys() - set(self.columns):
            raise KeyError(f"{sorted(unknown)[0]!r} is not a column of {self.path.name}")
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow([_cell(row.get(name)) for name in self.columns])


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a history.csv, empty cells left out; a last line that a kill cut short is left out."""
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if None in line or None in line.values():
                continue
            try:
                row = {name: float(cell) for name, cell in line.items() if cell not in ("", None)}
            except ValueError:
                continue
            if "step" in row:
                rows.append(row)
    return rows


def columns_of(rows: Sequence[Mapping[str, float]]) -> dict[str, tuple[list[float], list[float]]]:
    """For drawing: name → (steps, values) of every column except `step`."""
    drawn: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step" and math.isfinite(value):
                steps, values = drawn.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(value)
    return drawn


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"
