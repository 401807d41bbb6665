"""Files and folders as formats meet them: what lies below a folder, what a name in a label file means, text in."""

from __future__ import annotations

import os
import posixpath
import re
import reprlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from tracesight.data.pictures import PICTURE_SUFFIXES
from tracesight.errors import UserError

_PLAIN = re.compile(r"[^\\/:.\0\s][^\\/:\0]*+(?:/[^\\/:.\0\s][^\\/:\0]*+)*+")  # nothing to put in normal form
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxlong, _BRIEF.maxother = 3, 80, 80, 80
_LARGEST_TEXT = 1 << 28  # bytes; a label file of one picture, or a list, is far smaller


def files_below(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Files with one of these suffixes (lower case) in a folder and all below it, by name, folder after folder.

    Hidden files and folders are left out. Links are followed, each real folder once, so that a loop ends. Raises
    UserError: a folder that may not be read.
    """
    yield from _below(folder, tuple(suffixes), set())


def pictures_below(folder: Path) -> list[Path]:
    """Every picture in a folder and all below it, in the order of `by_name`."""
    return sorted(files_below(folder, PICTURE_SUFFIXES), key=lambda path: by_name(path.relative_to(folder).as_posix()))


def by_name(name: str) -> tuple[str, str]:
    """What pictures are sorted by: the name without its suffix, so that every format gives them in the same order."""
    stem, suffix = posixpath.splitext(name)
    return stem, suffix


def files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Files with one of these suffixes (lower case) in the folder itself, by name; [] where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            every = tuple(suffixes)
            names = [e.name for e in entries if not e.name.startswith(".") and _wanted(e, every)]
    except PermissionError:
        raise _closed(folder) from None
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def is_ours(file: Path) -> bool:
    """Whether a file is a manifest or a split that this package wrote to lie with the data, and so no label file."""
    try:
        with file.open("rb") as stream:
            return re.search(rb'"format": "tracesight |"@context"', stream.read(200)) is not None
    except OSError:
        return False


def folders_in(folder: Path) -> list[Path]:
    """Folders in a folder, by name, hidden ones left out; [] where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / e.name for e in entries if not e.name.startswith(".") and _is_folder(e))
    except PermissionError:
        raise _closed(folder) from None
    except OSError:
        return []


def inside(name: str) -> str | None:
    """A relative name from a label file in normal form, with `/`; None where it leads out of the folder.

    Windows separators count as separators: who means a file whose name holds a backslash asks for that first.
    """
    if _PLAIN.fullmatch(name):
        return name
    windows = PureWindowsPath(name)
    if windows.drive or windows.root or not name.strip() or "\0" in name:
        return None
    normal = os.path.normpath(windows.as_posix()).replace(os.sep, "/")
    return None if normal in (".", "..") or normal.startswith("../") else normal


def picture_named(folder: Path, name: str) -> Path | None:
    """The file that `name` means in `folder`, there or not; None where it leads out of the folder."""
    if "\\" in name and PurePosixPath(name).name == name and (folder / name).is_file():
        return folder / name  # a backslash is a letter like others where it is no separator
    normal = inside(name)
    return None if normal is None else folder / normal


def brief(value: Any) -> str:
    """A value for a message: one line, of a length and depth that no file can make large."""
    line = " ".join(_BRIEF.repr(value).split())
    return line if len(line) <= 60 else line[:57] + "..."


def read_text(path: Path) -> str:
    """A file of UTF-8 text, without its byte order mark. Raises ValueError that says what is wrong, without the path.

    UTF-16 is read too where a byte order mark says so, as some editors write it.
    """
    try:
        if path.stat().st_size > _LARGEST_TEXT:
            raise ValueError(f"larger than {_LARGEST_TEXT >> 20} MB, which is no label file")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from None
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def _below(folder: Path, suffixes: tuple[str, ...], seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        real = folder.stat()
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except PermissionError:
        raise _closed(folder) from None
    except OSError:  # a link to nothing, or in a loop
        return
    if (real.st_dev, real.st_ino) in seen:
        return
    seen.add((real.st_dev, real.st_ino))
    for name in sorted(entry.name for entry in shown if _wanted(entry, suffixes)):
        yield folder / name
    for name in sorted(entry.name for entry in shown if _is_folder(entry)):
        yield from _below(folder / name, suffixes, seen)


def _closed(folder: Path) -> UserError:
    return UserError(f"{folder}: the folder may not be read; change its permissions")


def _wanted(entry: os.DirEntry[str], suffixes: tuple[str, ...]) -> bool:
    """Whether an entry that is not hidden is a file with one of these suffixes."""
    if not entry.name.lower().endswith(suffixes):
        return False
    try:
        return entry.is_file()
    except OSError:  # a link in a loop
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
