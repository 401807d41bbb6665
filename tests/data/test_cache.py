"""What was computed from a file is kept as long as the file is the same, and never stands in anybody's way."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tracesight.data import cache
from tracesight.data.cache import cache_folder, cached


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_RACY_NS", -60_000_000_000)  # files of just now are trusted, but for one test
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a.png", "b ü.png", "c.png")]
    for path in paths:
        path.write_text(path.name)
    return paths


class Reader:
    """Computes what a file holds, and counts."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, paths: list[Path]) -> Iterator[Any]:
        for path in paths:
            self.read.append(path.name)
            yield {"text": path.read_text()}


def asked(paths: Iterable[Path], version: int = 1, kind: str = "text") -> tuple[list[str], list[str]]:
    """(what each holds, which were read)"""
    reader = Reader()
    return [value["text"] for value in cached(list(paths), kind, version, reader)], reader.read


def test_known_files_are_not_read_again_whatever_their_order(files: list[Path]) -> None:
    assert asked(files) == (["a.png", "b ü.png", "c.png"], ["a.png", "b ü.png", "c.png"])
    assert asked(files[::-1]) == (["c.png", "b ü.png", "a.png"], [])
    assert asked([files[0], files[0]]) == (["a.png", "a.png"], [])
    assert asked([]) == ([], [])


def test_relative_and_absolute_paths_are_one(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked(files)
    monkeypatch.chdir(files[0].parent)
    assert asked([Path("a.png"), Path("./b ü.png")])[1] == []


def test_another_version_kind_or_file_is_computed(files: list[Path]) -> None:
    asked(files)
    assert asked(files, version=2)[1] == [path.name for path in files]
    assert asked(files, kind="other")[1] == [path.name for path in files]
    files[1].write_text("longer than before")
    assert asked(files) == (["a.png", "longer than before", "c.png"], ["b ü.png"])


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no time of change that programs cannot set")
def test_a_file_whose_time_was_set_back_is_read_again(files: list[Path]) -> None:
    asked(files)
    status = files[0].stat()
    time.sleep(0.02)
    files[0].write_text("A.png")
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert files[0].stat().st_mtime_ns == status.st_mtime_ns
    assert asked(files)[0][0] == "A.png"


def test_a_file_written_a_moment_ago_is_not_trusted_yet(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_RACY_NS", 2_000_000_000)
    asked(files)
    assert asked(files)[1] == [path.name for path in files]
    monkeypatch.setattr(time, "time_ns", lambda now=time.time_ns: now() + 3_000_000_000)  # three seconds later
    assert asked(files)[1] == [path.name for path in files]
    assert asked(files)[1] == []


def test_a_file_that_changes_while_it_is_read_is_not_kept(files: list[Path]) -> None:
    def compute(paths: list[Path]) -> Iterator[Any]:
        for path in paths:
            yield {"text": path.read_text()}
            if path == files[0]:
                path.write_text("changed meanwhile")

    cached(files, "text", 1, compute)
    assert asked(files) == (["changed meanwhile", "b ü.png", "c.png"], ["a.png"])


def test_what_was_computed_before_an_error_is_kept(files: list[Path]) -> None:
    files[2].unlink()
    for _ in range(2):
        reader = Reader()
        with pytest.raises(FileNotFoundError):
            cached(files, "text", 1, reader)
    assert reader.read == ["c.png"]


def test_progress_counts_known_and_computed(files: list[Path]) -> None:
    asked(files[:1])
    seen: list[tuple[int, int]] = []
    cached(files, "text", 1, Reader(), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def _not_a_database(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"no database at all" * 100)


def _torn(file: Path) -> None:
    asked([file.parent.parent / "a.png"])
    with sqlite3.connect(file) as database:
        database.executemany("insert into computed values (?, 0, 0, 0, 0, '')", [(str(n) * 9,) for n in range(2000)])
    database.close()
    content = bytearray(file.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [_not_a_database, _torn])
def test_a_damaged_file_is_replaced(damage: Callable[[Path], None], files: list[Path], folder: Path) -> None:
    damage(folder / cache._NAME)
    texts = [path.name for path in files]
    assert asked(files) == (texts, texts)
    asked(files)  # the one that found it damaged may have had nowhere to write
    assert asked(files) == (texts, [])


def test_values_damaged_within_are_computed_again(files: list[Path], folder: Path) -> None:
    asked(files)
    with sqlite3.connect(folder / cache._NAME) as database:
        database.execute("update computed set value = '{' ")
    database.close()
    texts = [path.name for path in files]
    assert asked(files) == (texts, texts)
    assert asked(files) == (texts, [])


def test_a_folder_that_cannot_be_written_is_no_error(files: list[Path], tmp_path: Path, monkeypatch: Any) -> None:
    texts = [path.name for path in files]
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "a.png" / "below a file"))
    assert asked(files) == (texts, texts)
    monkeypatch.setenv(cache.VARIABLE, "off")
    assert asked(files) == (texts, texts)
    assert asked(files) == (texts, texts)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="for whom folders are never read-only")
def test_a_read_only_folder_is_no_error(files: list[Path], folder: Path) -> None:
    folder.mkdir(mode=0o500)
    texts = [path.name for path in files]
    assert asked(files) == (texts, texts)


def test_old_rows_go(files: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIMIT", 10)
    asked(files[1:], 0)
    asked(files)
    with sqlite3.connect(folder / cache._NAME) as database:
        database.execute("update computed set used = used - 9")
    database.close()
    assert asked(files[:1])[1] == []  # used today
    for version in range(2, 4):
        asked(files, version)
    with sqlite3.connect(folder / cache._NAME) as database:
        assert database.execute("select count(*) from computed").fetchone() == (7,)
    database.close()
    assert asked(files)[1] == ["b ü.png", "c.png"]


def test_several_processes_at_once(files: list[Path], folder: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom tracesight.data import cache\n"
        "cache._RACY_NS = -60_000_000_000\nfor version in range(15):\n"
        "    got = cache.cached(sys.argv[1:], 'text', version, lambda paths: [p.read_text() for p in paths])\n"
        "    assert got == [Path(p).name for p in sys.argv[1:]], got\n"
    )
    command = [sys.executable, "-c", script, *map(str, files)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    with sqlite3.connect(folder / cache._NAME) as database:
        kept = [json.loads(value) for (value,) in database.execute("select value from computed")]
    database.close()
    assert sorted(kept) == sorted([path.name for path in files] * 15)


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/var/c"}, "/var/c/tracesight"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/tracesight"),
        ("darwin", {}, "/home/me/Library/Caches/tracesight"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/tracesight/Cache"),
        ("linux", {cache.VARIABLE: "/named"}, "/named"),
        ("linux", {cache.VARIABLE: "off"}, None),
    ],
)
def test_where_it_lies(platform: str, variables: dict[str, str], expected: str | None, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    for name in (cache.VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == (None if expected is None else Path(expected))
