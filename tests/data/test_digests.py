"""Files are read once for their digest and what a camera wrote into them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from test_exif import tagged

from tracesight.data import cache, digests
from tracesight.data.digests import Facts, file_digests, file_facts
from tracesight.data.exif import Exif
from tracesight.errors import UserError


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    contents = [b"", b"text", tagged("JPEG", Make="Maker", BodySerialNumber="7"), bytes(100_000)]
    paths = [tmp_path / f"{number} ü.bin" for number in range(len(contents))]
    for path, content in zip(paths, contents):
        path.write_bytes(content)
    return paths


def expected(files: list[Path], serial: str | None = None) -> list[Facts]:
    exif = [None, None, Exif(make="Maker", serial=serial), None]
    contents = [path.read_bytes() for path in files]
    return [Facts(hashlib.sha256(c).hexdigest(), len(c), e) for c, e in zip(contents, exif)]


def test_digest_length_and_camera(files: list[Path]) -> None:
    assert file_facts(files) == expected(files)
    assert file_facts(files, private=True) == expected(files, "7")
    assert file_digests(files[::-1]) == [one.sha256 for one in expected(files)[::-1]]
    assert file_facts([]) == []


def test_large_files_are_read_piece_by_piece(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_WHOLE", 3)
    assert file_facts(files) == expected(files)


def test_processes_find_the_same(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_MANY", 1)
    monkeypatch.setattr(digests, "_CHUNK", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    seen: list[tuple[int, int]] = []
    progress = lambda done, total: seen.append((done, total))  # noqa: E731
    assert file_facts(files, processes=True, progress=progress) == expected(files)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_cache_is_asked_unless_told_otherwise(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_RACY_NS", -60_000_000_000)
    first = file_facts(files)
    monkeypatch.setattr(digests, "_facts", lambda *_: ("0" * 64, 0, None))
    assert file_facts(files) == first
    assert file_facts(files, kept=False) == [Facts("0" * 64, 0, None)] * 4


def test_the_first_that_cannot_be_read_is_named(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"away\.png: cannot be read \(No such file or directory\); restore"):
        file_facts([*files, tmp_path / "away.png", tmp_path / "b.png"])
    with pytest.raises(UserError, match="cannot be read"):
        file_facts([tmp_path])
