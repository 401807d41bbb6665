"""What is hostile or odd, in every format: each command ends, where it fails in one line, with the right status."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import pytest
from commands import Run
from made_formats import MAKERS

SIDE = 30_000


def bomb(path: Path) -> None:
    """A sound PNG of 900 million black pixels in some kilobytes."""
    squeezed = zlib.compressobj(9)
    row = bytes(1 + SIDE // 8)
    pixels = b"".join(squeezed.compress(row) for _ in range(SIDE)) + squeezed.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 1, 0, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b""))
    rows = (struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(rows))


@pytest.fixture(scope="module")
def bomb_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bomb") / "bomb.png"
    bomb(path)
    assert path.stat().st_size < 200_000
    return path


@pytest.mark.parametrize("format", MAKERS)
def test_a_picture_that_would_fill_the_memory(format: str, bomb_file: Path, tmp_path: Path, run: Run) -> None:
    data = tmp_path / "data"
    MAKERS[format](data)
    masks = ("masks", "SegmentationObject")
    picture = next(path for path in sorted(data.rglob("a.png")) if path.parent.name not in masks)
    picture.write_bytes(bomb_file.read_bytes())
    status, out, err = run("data", "check", data, "--workers", "0", "--json")
    assert (status, err) == (1, "")
    (found,) = [finding for finding in json.loads(out)["findings"] if finding["severity"] == "error"]
    assert found["code"] == "picture-unreadable" and found["picture"] == str(picture)
    assert found["message"] == f"{SIDE**2} pixels, and more than 178956970 could exhaust the memory"
    assert found["remedy"] == f"cut it into tiles, or raise the limit: TRACESIGHT_MAX_PIXELS={SIDE**2}"
    status, out, err = run("data", "check", data, "--workers", "0", "--fix", tmp_path / "fixed")
    assert (status, err) == (0, "")
    assert run("data", "check", tmp_path / "fixed", "--workers", "0")[0] == 0
    # Nobody else decodes it, or says so in one line.
    for command in (["manifest", data], ["diff", data, data], ["split", data, "--out", tmp_path / "parts"]):
        status, out, err = run("data", *command)
        assert status in (0, 2) and (status == 0 or err.count("\n") == 1), command


@pytest.mark.parametrize("format", MAKERS)
def test_links_that_go_round(format: str, tmp_path: Path, run: Run) -> None:
    data = tmp_path / "data"
    MAKERS[format](data)
    for folder in [data, *(path for path in data.rglob("*") if path.is_dir())]:
        (folder / "round").symlink_to(folder)
        (folder / "self.png").symlink_to("self.png")
    status, out, err = run("data", "check", data, "--workers", "0", "--json")
    assert (status, err) == (0, "")
    assert {name: counts["pictures"] for name, counts in json.loads(out)["sets"].items()} == {"all": 5}
    for command in (["convert", data, tmp_path / "pictures", "--format", "pictures"], ["manifest", data]):
        status, out, err = run("data", *command)
        assert (status, err) == (0, ""), command
    assert len([path for path in (tmp_path / "pictures").rglob("*") if path.is_file()]) == 5


def test_labels_that_cannot_be_read_are_told_by_whoever_goes_on_without_them(tmp_path: Path, run: Run) -> None:
    MAKERS["voc"](tmp_path / "data")
    file = tmp_path / "data/Annotations/a.xml"
    file.write_text('<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>' + file.read_text())
    told = "1 labels that cannot be read, left out (label-unreadable)"
    assert told in run("data", "diff", tmp_path / "data", tmp_path / "data")[2]
    assert "finding: label-unreadable, 1" in run("data", "manifest", tmp_path / "data")[1]
    for command in (["convert", "--format", "coco"], ["split", "--out"]):
        status, _, err = run("data", command[0], tmp_path / "data", *command[1:], tmp_path / "out")
        assert (status, err.count("\n")) == (2, 1)
        assert err.startswith(f"error: {file}: it has a document type")
        assert not (tmp_path / "out").exists()
