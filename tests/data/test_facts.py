"""What is told of picture files by reading each once, and where it comes from."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from planted import _scenery as scenery

from tracesight.data.crew import Work, crew
from tracesight.data.facts import facts_of, picture_facts
from tracesight.data.phash import NEAR, perceptual_hash
from tracesight.data.pictures import open_picture
from tracesight.errors import UserError
from tracesight.lineage.digest import file_digest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACESIGHT_CACHE", str(tmp_path / "cache"))


def alone(work: Work, tasks: Iterable[Any], *, many: bool) -> Iterator[Any]:
    """This process."""
    return map(work, tasks)


def picture(seed: int = 0, scale: int = 1) -> Image.Image:
    image = scenery(np.random.default_rng(seed))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_facts_are_those_of_the_picture_in_full(suffix: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    picture(scale=6).convert(mode).save(path)
    facts, pixels = picture_facts(path), open_picture(path)
    assert facts.sha256 == file_digest(path)
    assert (facts.height, facts.width, facts.orientation) == (*pixels.shape[:2], 1)
    assert not facts.problem
    assert not facts.missing
    differing = (int(facts.phash, 16) ^ int(perceptual_hash(pixels), 16)).bit_count()
    assert differing <= NEAR // 4  # a JPEG is decoded at a part of its size


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_turns_the_size(suffix: str, tmp_path: Path) -> None:
    for orientation in (1, 3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture().save(tmp_path / f"a{suffix}", exif=exif)
        facts = picture_facts(tmp_path / f"a{suffix}")
        assert facts.orientation == orientation
        assert (facts.height, facts.width) == ((128, 96) if orientation > 4 else (96, 128))


def test_jpegs_are_damaged_exactly_where_decoding_in_full_says_so(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(1), tmp_path / "a.jpg"
    verdicts = []
    for progressive in (False, True):
        file = io.BytesIO()
        picture(scale=4).save(file, "JPEG", quality=80, progressive=progressive)
        content = file.getvalue()
        for trial in range(30):
            damaged = bytearray(content)
            if trial % 2:
                damaged = damaged[: int(rng.integers(len(damaged)))]
            else:
                for place in rng.integers(len(damaged), size=5):
                    damaged[place] = int(rng.integers(256))
            path.write_bytes(damaged)
            try:
                open_picture(path)
                problem = ""
            except UserError as error:
                problem = str(error)
            assert bool(picture_facts(path).problem) == bool(problem)
            assert picture_facts(path).problem in problem
            verdicts.append(bool(problem))
    assert {True, False} == set(verdicts)


def test_what_is_no_picture(tmp_path: Path) -> None:
    missing = picture_facts(tmp_path / "a.png")
    assert missing.missing
    assert "no such picture file" in missing.problem
    (tmp_path / "b.png").write_bytes(b"<html>")
    other = picture_facts(tmp_path / "b.png")
    assert not other.missing
    assert "not a picture" in other.problem
    assert str(tmp_path) not in other.problem
    assert picture_facts(tmp_path).problem
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jpg")
        assert "pipe" in picture_facts(tmp_path / "pipe.jpg").problem


def test_facts_come_from_the_cache_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for seed, path in enumerate(paths):
        picture(seed).save(path)
        os.utime(path, (1e9, 1e9))
    monkeypatch.setattr("tracesight.data.cache._RACY_NS", 0)
    seen: list[tuple[int, int]] = []
    first = facts_of(paths, alone, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    asked: list[Path] = []
    monkeypatch.setattr("tracesight.data.facts.picture_facts", lambda path: asked.append(path) or first[0])
    assert facts_of(paths, alone) == first
    assert not asked
    picture(9).save(paths[1])
    facts_of(paths, alone)
    assert [Path(path).name for path in asked] == ["1.png"]
    facts_of(paths, alone, fresh=True)
    assert len(asked) == 4


def test_processes_and_this_one_tell_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.jpg" for i in range(70)]
    for seed, path in enumerate(paths):
        picture(seed % 5).save(path)
    paths[3].write_bytes(b"")
    with crew(2) as share:
        assert facts_of(paths, share, fresh=True) == facts_of(paths, alone, fresh=True)
