"""Pickles can run code: what they are known by, and how a folder that holds one is refused."""

from __future__ import annotations

from pathlib import Path

from tracesight.errors import UserError

_SUFFIXES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt"})
_STARTS = (b"PK\x03\x04", b"\x80")  # torch's zip, and a bare pickle


def is_pickle(path: Path) -> bool:
    """Whether a file is one, by its name or its first bytes."""
    if path.suffix.lower() in _SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(4).startswith(_STARTS)
    except OSError:
        return False


def refuse_pickles(folder: Path, instead: str) -> None:
    """A pickle is refused even beside good files: whoever put it there meant it to be opened.

    instead: what the folder should hold. Raises UserError.
    """
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_pickle(path):
            raise UserError(
                f"{path}: a pickle, which can run code and is refused; a bundle holds {instead}. "
                "Bring other people's weights in with `tracesight weights import`"
            )
