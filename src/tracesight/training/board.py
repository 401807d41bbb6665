"""The curves of a run for TensorBoard: the rows of history.csv once more, as event files in one folder.

Events are written here and not by torch's SummaryWriter, which writes on a thread (a full disk is then a traceback
beside the run, and a kill loses what was queued) and names its files by the clock (TensorBoard reads files in the order
of their names: after a clock that went back, or a restart within one second, the older file would win).
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from pathlib import Path
from typing import Any, BinaryIO

from tracesight.errors import PartialFailure, UserError

_FILE = re.compile(r"events\.out\.tfevents\.(\d+)\..*")


class Board:
    """One event file, written out row by row; `open_board` makes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._event, self._summary, session, record_writer = _tensorboard()
        self._file: BinaryIO = path.open("xb")
        self._writer = record_writer(self._file)
        self._session = session

    def begin(self, step: int) -> None:
        """The head of the file: what earlier files hold of steps after `step` is not shown any more."""
        self._write(self._event(wall_time=time.time(), file_version="brain.Event:2"))
        start = self._session(status=self._session.START)
        self._write(self._event(wall_time=time.time(), step=step + 1, session_log=start))
        self._file.flush()

    def add(self, step: int, **values: float | None) -> None:
        """One point on each curve; values that are None or not finite are left out. `tag_of` names the curves.

        Raises:
            PartialFailure: the file cannot be written, as on a full disk.
        """
        points = [
            self._summary.Value(tag=tag_of(name), simple_value=value)
            for name, value in values.items()
            if value is not None and math.isfinite(value)
        ]
        if not points:
            return
        try:
            self._write(self._event(wall_time=time.time(), step=step, summary=self._summary(value=points)))
            self._file.flush()
        except OSError as error:
            self.close()
            raise PartialFailure(
                f"{self.path}: cannot write the curves of step {step}: {error.strerror}; make room and --resume"
            ) from None

    def close(self) -> None:
        """Close the file; every row that was added is in it already."""
        with contextlib.suppress(OSError):  # what could not be written has been reported
            self._file.close()

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())


def open_board(folder: Path, step: int) -> Board:
    """A new event file in `folder`, for a run that has made `step` updates; `tensorboard --logdir` shows the folder.

    Args:
        folder: made if it is not there; event files of earlier processes of the same run stay.
        step: points after it, of a process that was killed after its last checkpoint, vanish from view.

    Raises:
        UserError: TensorBoard is not installed, or the folder cannot be written.
    """
    require_tensorboard()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        board = Board(folder / _next_name(folder))
        board.begin(step)
    except OSError as error:
        raise UserError(f"{folder}: cannot write the curves for TensorBoard: {error.strerror}") from None
    return board


def require_tensorboard() -> None:
    """Raises UserError if TensorBoard is not installed."""
    try:
        _tensorboard()
    except ImportError as error:
        raise UserError(
            f"curves for TensorBoard need another package: pip install 'tracesight[log]' ({error})"
        ) from None


def tag_of(column: str) -> str:
    """The curve of a column of the history: what is before the slash is a group of panels in TensorBoard.

    "loss" → "loss/total", "loss_mask" → "loss/mask", "val_segm_AP@all" → "val/segm_AP_all", "lr" → "lr". TensorBoard's
    names have no "@".
    """
    if column == "loss":
        return "loss/total"
    group, _, name = column.partition("_")
    tag = f"{group}/{name}" if group in ("loss", "val") and name else column
    return re.sub(r"[^-/\w.]", "_", tag)


def _next_name(folder: Path) -> str:
    """A name after those of all earlier files, whatever the clock says."""
    taken = [int(match[1]) for path in folder.iterdir() if (match := _FILE.fullmatch(path.name))]
    return f"events.out.tfevents.{max([int(time.time()), *(stamp + 1 for stamp in taken)]):010d}.tracesight"


def _tensorboard() -> tuple[Any, Any, Any, Any]:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore
    from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore

    return Event, Summary, SessionLog, RecordWriter
