"""What was computed from files, kept between commands: digests, perceptual hashes, findings.

One SQLite file in the user's cache folder. A value belongs to a file's absolute path, size and times, and to a kind
and version of computation. It holds digests of paths, never the paths. The variable `TRACESIGHT_CACHE` names another
folder, or says `off`. Nothing here is an error to anybody: where the folder cannot be written or the file is damaged,
values are computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

VARIABLE = "TRACESIGHT_CACHE"
LIMIT = 2_000_000  # rows; about 250 bytes each where values are digests
_NAME = "computed-1.sqlite"  # another number for another table
_WAIT = 5.0  # seconds for other processes to finish writing
# A file that was written a moment ago may be written again with the same size and time, since clocks of file systems
# tick slowly (FAT: 2 s). What is computed from it is not kept until its times lie this far back.
_RACY_NS = 2_000_000_000
_DAY = 86_400

_TABLE = """create table if not exists computed (
    key blob primary key, size integer, mtime integer, ctime integer, used integer, value text) without rowid"""
_KNOWN = "select key, size, mtime, ctime, used, value from computed where key in ({})"
_AT_ONCE = 500  # keys of a query: older libraries take 999
_KEEP = "insert or replace into computed values (?, ?, ?, ?, ?, ?)"
_DROP = """delete from computed where key in
    (select key from computed order by used limit max(0, (select count(*) from computed) - ?))"""

_Stamp = tuple[int, int, int]  # size, mtime and ctime in nanoseconds


def cached(
    paths: Sequence[Path | str],
    kind: str,
    version: int,
    compute: Callable[[list[Path]], Iterable[Any]],
    progress: Callable[[int, int], None] | None = None,
) -> list[Any]:
    """A JSON value for each of `paths`: as computed before from the same file, else by `compute`.

    Args:
        kind, version: of the computation. Another version, or anything else that a value depends on beside the bytes
            of its file, needs another name.
        compute: yields the values of the paths that it is given, in their order, while it may work on many at once.
            What it raises is passed on; what came before is kept.
        progress: called with (values there, paths), for those known at once and then for each that is computed.
    """
    names = [os.fspath(path) for path in paths]
    database = _file()
    stamps = [_stamp(name) for name in names] if database else []
    keys = _keys(names, kind, version) if database else []
    values = _known(database, keys, stamps) if database else {}
    unknown = [row for row in range(len(paths)) if row not in values]
    done = len(paths) - len(unknown)
    if progress is not None and done:
        progress(done, len(paths))
    now, fresh = time.time_ns(), []
    try:
        for row, value in zip(unknown, compute([Path(paths[row]) for row in unknown]) if unknown else (), strict=True):
            values[row] = value
            fresh.append(row)
            if progress is not None:
                progress(done + len(fresh), len(paths))
    finally:
        if database:
            settled = [row for row in fresh if _settled(stamps[row], names[row], now)]
            _keep(database, [(keys[row], *(stamps[row] or ()), _today(), json.dumps(values[row])) for row in settled])
    return [values[row] for row in range(len(paths))]


def cache_folder() -> Path | None:
    """The folder that the variable names, else the user's own for caches; None where the variable says `off`."""
    said = os.environ.get(VARIABLE)
    if said:
        return None if said == "off" else Path(said)
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "tracesight"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "tracesight" / "Cache"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else home / ".cache") / "tracesight"  # a relative one counts as none


def _file() -> Path | None:
    try:
        folder = cache_folder()
    except RuntimeError:  # nobody's home
        return None
    return folder / _NAME if folder is not None else None


def _stamp(path: str) -> _Stamp | None:
    try:
        status = os.stat(path)  # noqa: PTH116 — without Path, as in `_keys`
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _settled(before: _Stamp | None, path: str, now: int) -> bool:
    """Whether the file is as it was before it was read, and has been for a while."""
    return before is not None and max(before[1:]) < now - _RACY_NS and _stamp(path) == before


def _keys(names: list[str], kind: str, version: int) -> list[bytes]:
    """Digests of what the values belong to. Without Path, which would take longer than all else here."""
    here, keys = "", []
    absolute = os.sep == "/"  # elsewhere a name that begins with it lacks the drive
    with suppress(OSError):  # the folder that the process is in may be gone
        here = os.getcwd()  # noqa: PTH109
    for name in names:
        whole = name if absolute and name.startswith("/") else os.path.join(here, name)  # noqa: PTH118
        text = f"{kind}\0{version}\0{whole}"
        keys.append(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())
    return keys


def _today() -> int:
    return int(time.time()) // _DAY


def _known(file: Path, keys: list[bytes], stamps: list[_Stamp | None]) -> dict[int, Any]:
    """Row → value, of those that are kept."""
    asked = sorted(key for key, stamp in zip(keys, stamps) if stamp is not None)  # neighbours lie on one page
    if not asked or not file.exists():
        return {}

    def read(database: sqlite3.Connection) -> dict[bytes, tuple[Any, ...]]:
        found: dict[bytes, tuple[Any, ...]] = {}
        for first in range(0, len(asked), _AT_ONCE):
            some = asked[first : first + _AT_ONCE]
            rows = database.execute(_KNOWN.format(",".join("?" * len(some))), some).fetchall()
            found.update((row[0], row) for row in rows)
        today = _today()
        old = [(today, key) for key, _, _, _, used, _ in found.values() if used != today]
        if old:  # the next `_drop` shall spare them
            with suppress(sqlite3.OperationalError):
                database.executemany("update computed set used = ? where key = ?", old)
        return found

    found = _with_database(file, read) or {}
    rows = [row for row, (key, stamp) in enumerate(zip(keys, stamps)) if key in found and found[key][1:4] == stamp]
    try:
        values = json.loads(f"[{','.join(found[keys[row]][5] for row in rows)}]")
        return dict(zip(rows, values, strict=True))
    except (ValueError, TypeError):  # damaged in a way that SQLite does not see
        return {}


def _keep(file: Path, rows: list[tuple[Any, ...]]) -> None:
    def write(database: sqlite3.Connection) -> None:
        database.executemany(_KEEP, rows)
        if database.execute("select count(*) from computed").fetchone()[0] > LIMIT:
            database.execute(_DROP, (LIMIT * 3 // 4,))

    if rows:
        with suppress(OSError):
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _with_database(file, write)


def _with_database(file: Path, use: Callable[[sqlite3.Connection], Any]) -> Any:
    """What `use` returns, in one transaction; None where it is not to be. A damaged file is removed."""
    try:
        with closing(sqlite3.connect(file, timeout=_WAIT)) as database, database:
            database.execute("pragma synchronous = off")  # what a power cut damages is computed again
            database.execute(_TABLE)
            return use(database)
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            with suppress(OSError):
                file.unlink()
        return None
    except (OSError, sqlite3.Error):
        return None
