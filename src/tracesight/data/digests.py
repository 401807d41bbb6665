"""Facts of files that reading them once gives: SHA-256, bytes, and what a camera wrote into them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from tracesight.data.cache import cached
from tracesight.data.exif import Exif, read_exif
from tracesight.errors import UserError

VERSION = 2
_WHOLE = 1 << 25  # bytes; larger files are read piece by piece
_CHUNK = 200  # files that a process takes at once
_MANY = 4000  # files from which processes pay
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0)  # Windows would translate line ends

_Row = tuple[str, int, dict[str, Any] | None]  # sha256, bytes, fields of Exif


class Facts(NamedTuple):
    """sha256: 64 hex digits, of the file's bytes. bytes: how many. exif: None where the file holds none."""

    sha256: str
    bytes: int
    exif: Exif | None


def file_facts(
    paths: Sequence[Path | str],
    *,
    private: bool = False,
    kept: bool = True,
    processes: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Facts]:
    """The facts of each file, in parallel.

    Args:
        private: EXIF with serial number and place.
        kept: what was computed before from files that are unchanged is taken from the cache (`data/cache.py`).
        processes: many files are shared among processes, since threads wait for Python's lock. They import the main
            module again, so only a program that guards it by `if __name__ == "__main__"` may ask for them.
        progress: called with (files done, files).

    Raises UserError: the first file that cannot be read.
    """

    def compute(unknown: Sequence[Path | str]) -> Iterator[_Row]:
        for done, row in enumerate(_computed(unknown, private, processes), start=1):
            yield row
            if progress is not None and not kept:
                progress(done, len(unknown))

    kind = "facts" + ", private" * private + ", dicom" * (find_spec("pydicom") is not None)
    rows = cached(paths, kind, VERSION, compute, progress) if kept else list(compute(list(paths)))
    return [Facts(sha256, size, None if exif is None else Exif(**exif)) for sha256, size, exif in rows]


def file_digests(paths: Sequence[Path]) -> list[str]:
    """The SHA-256 of each file, kept between commands. Raises UserError: the first file that cannot be read."""
    return [facts.sha256 for facts in file_facts(paths)]


def _computed(paths: Sequence[Path | str], private: bool, processes: bool) -> Iterator[_Row]:
    names = [os.fspath(path) for path in paths]
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    cores = os.cpu_count() or 1
    if processes and cores > 1 and len(names) >= _MANY:
        pool: Executor = ProcessPoolExecutor(cores, mp_context=get_context("spawn"))
    else:
        pool = ThreadPoolExecutor(min(8, 2 * cores))
    with pool:
        for rows in pool.map(_facts_of, chunks, [private] * len(chunks)):
            for row in rows:
                if isinstance(row, str):
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise UserError(row)
                yield row


def _facts_of(names: list[str], private: bool) -> list[_Row | str]:
    """A row for each file, a line for one that cannot be read."""
    return [_facts(name, private) for name in names]


def _facts(name: str, private: bool) -> _Row | str:
    try:
        file = os.open(name, _READ)  # of a small file, half of the time goes into a file object
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("not a file")
            content = os.read(file, status.st_size + 1) if status.st_size <= _WHOLE else b""
            if len(content) == status.st_size:
                digest, size, exif = hashlib.sha256(content), len(content), read_exif(content, private)
            else:  # too large for one piece, or written to right now
                with os.fdopen(file, "rb", buffering=0, closefd=False) as stream:
                    stream.seek(0)
                    digest, size = hashlib.file_digest(stream, "sha256"), stream.tell()
                    exif = read_exif(stream, private)
        finally:
            os.close(file)
    except (OSError, ValueError) as error:
        return f"{name}: cannot be read ({getattr(error, 'strerror', None) or error}); restore or remove it"
    return digest.hexdigest(), size, None if exif is None else dict(vars(exif))
