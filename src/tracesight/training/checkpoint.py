"""Checkpoints: written whole or not at all, checked when read, the newest one that is sound wins.

A file is named `step-STEP-DIGEST.pt`, where DIGEST begins the SHA-256 of its content, so that one rename makes both the
content and the check on it visible. It holds tensors and plain values only and is read with `weights_only=True`.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tracesight.errors import CheckpointError, UserError
from tracesight.lineage.digest import file_digest

FORMAT = 2  # 1 numbered the optimiser's state by position, 2 has the names of the parameters
_NAME = re.compile(r"step-(\d{8})-([0-9a-f]{16})\.pt")


class Found(NamedTuple):
    """The newest sound checkpoint, and one line about each newer one that was not."""

    path: Path | None
    state: dict[str, Any] | None
    notes: tuple[str, ...]


NOTHING = Found(None, None, ())


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write `state` as the checkpoint of `step` and delete all but the `keep` newest.

    Raises:
        CheckpointError: it cannot be written (a full disk); what was there before is untouched.
    """
    draft, told = folder / f"step-{step:08d}.tmp", _Told()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.tmp"):  # of a run that was killed while it wrote
            leftover.unlink(missing_ok=True)
        with draft.open("wb", buffering=0) as file, _without_checksums():
            torch.save({"format": FORMAT, "step": step, **state}, told.to(file))  # type: ignore[arg-type]
            os.fsync(file.fileno())
        path = folder / f"step-{step:08d}-{file_digest(draft)[:16]}.pt"
        draft.replace(path)
        _sync_folder(folder)
    # torch reports a full disk as a RuntimeError of its archive writer.
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        error = told.error or error
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        last = max((number for number, _ in _listed(folder)), default=None)
        remains = "no checkpoint was written yet" if last is None else f"the one of step {last} remains"
        raise CheckpointError(
            f"{draft.parent}: cannot write the checkpoint of step {step}: {reason}; {remains}: make room and --resume"
        ) from None
    others = sorted((row for row in _listed(folder) if row[1] != path), reverse=True)
    # Of this step or later ones there are only those that were damaged when the run was taken up again.
    useless = [row for row in others if row[0] >= step]
    for _, old in useless + others[len(useless) :][max(1, keep) - 1 :]:
        old.unlink(missing_ok=True)
    return path


class _Told:
    """A file that remembers why writing to it failed: torch's archives then report a position that is not theirs."""

    def __init__(self) -> None:
        self.error: OSError | None = None

    def to(self, file: io.FileIO) -> _Told:
        """Write to `file` from now on."""
        self._file = file
        return self

    def write(self, content: bytes | memoryview) -> int:
        """Write all of it. Raises OSError, as on a full disk."""
        rest, size = memoryview(content).cast("B"), memoryview(content).nbytes
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = error
            raise
        return size

    def flush(self) -> None:
        """Nothing is held back."""


def load_newest(folder: Path) -> Found:
    """The newest checkpoint in `folder` that is whole; each newer one that is not is named in `notes`."""
    damaged = []
    for _, path in sorted(_listed(folder), reverse=True):
        try:
            state = load_checkpoint(path)
        except UserError as error:
            damaged.append(str(error))
        else:
            return Found(path, state, tuple(f"{line}; using the one before" for line in damaged))
    return Found(None, None, tuple(damaged))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in one checkpoint. Raises UserError if it is damaged or of a later format."""
    match = _NAME.fullmatch(path.name)
    try:
        if match is not None and file_digest(path)[:16] != match[2]:
            raise UserError(f"{path}: damaged checkpoint: its content is not what was written")
        state = torch.load(path, map_location="cpu", weights_only=True)
        newer = state["format"] > FORMAT
    except UserError:
        raise
    # Damaged archives raise whatever their bytes happen to provoke.
    except Exception as error:
        raise UserError(f"{path}: damaged checkpoint: {type(error).__name__}") from None
    if newer:
        raise UserError(f"{path}: checkpoint of format {state['format']}, this version reads up to {FORMAT}")
    return state


def _listed(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    return [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]


@contextlib.contextmanager
def _without_checksums() -> Iterator[None]:
    """torch's archives have a CRC of each tensor, which takes as long as all the rest; the file's name says more."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
