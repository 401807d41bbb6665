"""One training writes in a folder at a time: a lock that vanishes with its process, however that dies.

On POSIX it is a record lock (`fcntl.lockf`). The kernel gives it to one process and takes it back when that process
ends, by kill -9 too, while children that it forked (the workers that load data) live on for seconds and do not have
it. Its one trap: closing any other descriptor of the file in the same process drops it, so nothing here opens the file
twice. On Windows `msvcrt.locking` does the same work.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from tracesight.errors import UserError

# What a run's folder may hold before the run has begun.
LOCK_NAME = ".lock"

_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
# Windows does not let others read bytes that are locked, so the locked one lies beyond the text that they shall read.
_FAR = 1 << 20

# The kernel refuses a second process, but not a second attempt by this one; this set does.
_held: set[Path] = set()
_held_guard = threading.Lock()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process; makes the folder if it is not there, and removes it again if it stays empty.

    The file `.lock` in it says who holds it, and is removed on leaving. Where the file system has no locks, a warning
    says so and the work goes on.

    Raises:
        UserError: another process, or this one already, holds the folder; or it cannot be made or written to.
    """
    key, owner = folder.resolve(), os.getpid()
    with _held_guard:
        if key in _held:
            raise UserError(f"{folder} is being written by this process: wait, or choose another --out")
        _held.add(key)
    try:
        made = not folder.exists()
        path, file = folder / LOCK_NAME, _locked(folder)
        try:
            yield
        finally:
            if os.getpid() == owner:  # a forked child that gets here has inherited the descriptor, but not the lock
                _release(path, file, folder if made else None)
    finally:
        with _held_guard:
            _held.discard(key)


def _locked(folder: Path) -> int:
    """The descriptor of the folder's `.lock`, locked and saying who we are."""
    path, file_in_the_way = folder / LOCK_NAME, UserError(f"{folder} is a file, or lies in one; --out names a folder")
    for _ in range(1000):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its last holder has removed the empty folder at this moment
            continue
        except FileExistsError:
            if os.path.lexists(folder):
                raise file_in_the_way from None
            continue
        except NotADirectoryError:
            raise file_in_the_way from None
        except OSError as error:
            raise UserError(f"{folder}: cannot be written to ({error.strerror}); choose another --out") from None
        try:
            if not _lock(file, folder) or _is_still(path, file):
                _write_holder(file)
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its last holder removed it after we had opened it: a lock on it would exclude nobody
    raise UserError(f"{folder}: cannot be made; choose another --out")


def _lock(file: int, folder: Path) -> bool:
    """Locks it, or returns False where the file system has no locks. Raises UserError if another process holds it."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(file, _FAR, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            raise UserError(
                f"{folder} is being written by {_holder(file)}: wait, stop it, or choose another --out"
            ) from None
        if error.errno not in _UNSUPPORTED:
            raise
        warnings.warn(f"{folder}: its file system has no locks, so nothing keeps a second run out of it", stacklevel=2)
        return False
    return True


def _is_still(path: Path, file: int) -> bool:
    """Whether the file at `path` is the one that is open as `file`."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(file))


def _write_holder(file: int) -> None:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    text = json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": since}) + "\n"
    os.lseek(file, 0, os.SEEK_SET)
    with suppress(OSError):  # a full disk: the lock holds, only its text is missing
        os.ftruncate(file, 0)
        os.write(file, text.encode())


def _holder(file: int) -> str:
    """Who holds it, for the message; the text may be missing for the instant between locking and writing."""
    os.lseek(file, 0, os.SEEK_SET)
    try:
        holder = json.loads(os.read(file, 4096))
        return f"process {holder['process']} on host {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _release(path: Path, file: int, made: Path | None) -> None:
    """Removes the file, then lets go: nobody who locks it afterwards takes it for the folder's lock (`_is_still`).

    Windows removes no file that is open, and so neither ours before it is closed nor one that another has opened.
    """
    if os.name == "nt":
        os.close(file)
        with suppress(OSError):
            path.unlink()
    else:
        try:
            if _is_still(path, file):
                with suppress(OSError):
                    path.unlink()
        finally:
            os.close(file)
    if made is not None:
        with suppress(OSError):  # it holds what the run wrote
            made.rmdir()
