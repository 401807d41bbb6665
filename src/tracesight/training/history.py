"""The course of a run: history.csv, one row an update and one a validation, cut back on resume."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tracesight.errors import PartialFailure, UserError
from tracesight.scene.values import write_whole
from tracesight.training.board import Board
from tracesight.training.fit import is_disk_full


class History:
    """Rows appended to a CSV file as they come; cells that a row does not have stay empty.

    Args:
        path: the file; rows after `step` are cut off, so that a resumed run writes them anew. The cut is made in a new
            file that then takes its place, so that a kill leaves the one or the other, whole.
        columns: names of the columns; the first is `step`, the number of updates made. The file of an earlier version
            may lack some: their cells stay empty.
        step: updates made so far; 0 begins a new file.
        measured: updates made at the last validation that counts: rows without a loss after it are cut off too; None:
            all count.
        board: is given every row too.

    Raises:
        UserError: the file cannot be written; what was there before is untouched.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        step: int = 0,
        board: Board | None = None,
        measured: int | None = None,
    ) -> None:
        self.path, self.columns, self.board = path, tuple(columns), board
        last = step if measured is None else measured
        there = read_history(path) if step and path.exists() else []
        kept = [row for row in there if row["step"] <= (step if "loss" in row else last)]
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(row.get(name)) for name in self.columns] for row in kept)
        try:
            write_whole(path, text.getvalue(), synced=True)
        except OSError as error:
            raise UserError(f"{_trouble(path, error)}; make room or choose another --out") from None

    def add(self, **row: float | None) -> None:
        """Append one row.

        Raises:
            KeyError: a name is not a column.
            PartialFailure: the row cannot be written, as on a full disk; the file ends with the row before.
        """
        if unknown := row.keys() - set(self.columns):
            raise KeyError(f"{sorted(unknown)[0]!r} is not a column of {self.path.name}")
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerow([_cell(row.get(name)) for name in self.columns])
        try:
            _append(self.path, text.getvalue().encode())
        except OSError as error:
            where = f"its row of step {row.get('step')} was not written"
            raise PartialFailure(f"{_trouble(self.path, error)}: {where}; make room and --resume") from None
        if self.board is not None:
            values = {name: value for name, value in row.items() if name != "step"}
            self.board.add(int(row["step"] or 0), **values)


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a history.csv, empty cells left out; a last line that a kill cut short is left out."""
    # Without its end a line is not whole, even if it looks so: 0.1 may be the beginning of 0.123.
    whole, end, _ = path.read_bytes().rpartition(b"\n")
    rows = []
    for line in csv.DictReader(io.StringIO((whole + end).decode("utf-8", "replace"), newline="")):
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


def _append(path: Path, line: bytes) -> None:
    """Add a line to the file, or raise OSError and leave the file as it was."""
    # Unbuffered, so that a disk that is full says so here and not when the file is closed.
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[file.write(line) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def _trouble(path: Path, error: OSError) -> str:
    if is_disk_full(error):
        return f"no space left on {path}"
    return f"cannot write {path} ({error.strerror})"
