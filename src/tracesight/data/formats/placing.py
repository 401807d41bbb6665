"""Where pictures go when a set is written: byte for byte, under names that no two of them share."""

from __future__ import annotations

import contextlib
import os
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from tracesight.data.record import Record
from tracesight.errors import UserError

Names = dict[str, tuple[str, str]]  # the name wanted and the one given, by what makes two of them the same


def place(record: Record, folder: Path, taken: Names, name: str | None = None) -> str:
    """Copy a picture below `folder` and give its name there, relative and with `/`; `taken` holds the names so far.

    name: which it shall have; the record's own by default. Where another picture has it, in letters of another case too
    or with another suffix (label files go by the name without it), a number is added. Raises UserError: the picture
    cannot be read.
    """
    name = free_name(record.name if name is None else name, taken)
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not record.path.is_file():
        raise UserError(f"{record.path}: no such picture file; restore it or remove its labels")
    shutil.copyfile(record.path, target)
    return name


def free_name(name: str, taken: Names) -> str:
    """A safe relative path made of `name`, whose part before the suffix is not in `taken` yet; it is added."""
    safe = PurePosixPath(_safe(name))
    stem, count = safe.with_suffix(""), 1
    while _key(chosen := stem if count == 1 else stem.with_name(f"{stem.name}~{count}")) in taken:
        count += 1
    taken[_key(chosen)] = name, f"{chosen}{safe.suffix}"
    return f"{chosen}{safe.suffix}"


def folder_names(categories: Mapping[int, str]) -> dict[int, str]:
    """A folder for each category, by its id: its name, made safe where it must be; no two share one."""
    taken: Names = {}
    return {number: free_name(f"{name}.folder", taken).removesuffix(".folder") for number, name in categories.items()}


def renamed(pairs: Iterable[tuple[str, str]], what: str) -> list[str]:
    """A sentence on the pairs (name wanted, name given) that differ; what: "pictures" or "categories"."""
    other = list(dict.fromkeys((wanted, given) for wanted, given in pairs if wanted != given))
    shown = ", ".join(f"{wanted} is {given}" for wanted, given in other[:3]) + (", …" if len(other) > 3 else "")
    return (
        [f"names of {what} that are taken, or that some systems refuse: {len(other)} changed ({shown})"]
        if other
        else []
    )


@contextlib.contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder to write in, which becomes `folder` when the block has ended well; nothing is left when it has not.

    `folder` may be there, but must be empty. Raises UserError: it is not, or nothing can be written there.
    """
    folder = folder.absolute()
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: the folder is not empty; name a new one")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file is in its place; name a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        part.mkdir()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); name another folder") from None
    try:
        yield part
        if folder.is_dir():
            folder.rmdir()
        part.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); name another folder") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _safe(name: str) -> str:
    """Without what no file system takes everywhere, and without a way out of the folder."""
    parts = [
        "".join("_" if unicodedata.category(c) in ("Cc", "Cs") or c in '<>:"|?*\\' else c for c in part).strip()
        for part in name.split("/")
    ]
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "picture"


def _key(path: PurePosixPath) -> str:
    """What two names share that some file system takes for one."""
    return unicodedata.normalize("NFC", str(path)).casefold()
