"""Folders that may not be read or written, and Ctrl-C: one line, the right exit status, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import Run
from made_formats import MAKERS
from PIL import Image

NOBODY = 65534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine can reach, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def as_nobody(run: Run, tmp_path: Path) -> Run:
    """Run a command as a user whom permissions bind: root may write anywhere."""
    if not hasattr(os, "geteuid"):
        pytest.skip("no users to be another of")
    MAKERS["yolo"](tmp_path / "warm")  # modules that are imported before cannot lie where nobody may read
    for number, (command, *more) in enumerate([("check", "--fix"), ("split", "--out"), ("manifest", "--out")]):
        assert run("data", command, tmp_path / "warm", *more, tmp_path / f"w{number}")[0] == 0

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        user = os.geteuid()
        if user != 0:
            return run(*arguments)
        os.seteuid(NOBODY)
        try:
            return run(*arguments)
        finally:
            os.seteuid(user)

    return call


def test_a_target_that_cannot_be_written(open_folder: Path, as_nobody: Run) -> None:
    MAKERS["coco"](open_folder / "data")
    target = open_folder / "shut"
    target.mkdir()
    target.chmod(0o555)
    for command in (
        ["check", open_folder / "data", "--fix", target / "x", "--workers", "0"],
        ["check", open_folder / "data", "--out", target / "x", "--workers", "0"],
        ["convert", open_folder / "data", target / "x", "--format", "voc"],
        ["split", open_folder / "data", "--out", target / "x"],
        ["manifest", open_folder / "data", "--out", target / "x.json"],
    ):
        status, out, err = as_nobody("data", *command)
        assert (status, out) == (2, "")
        assert err.startswith(f"error: {target}/x") and err.count("\n") == 1, command
        assert "written" in err and "name another" in err
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "shut"),
    [("coco", "."), ("coco", "instances.json"), ("masks", "a"), ("imagefolder", "without"), ("pictures", "d")],
)
def test_data_that_may_not_be_read(open_folder: Path, as_nobody: Run, format: str, shut: str) -> None:
    MAKERS[format](open_folder / "data")
    (open_folder / "data" / shut).chmod(0)
    status, out, err = as_nobody("data", "check", open_folder / "data", "--workers", "0")
    (open_folder / "data" / shut).chmod(0o755)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {open_folder / 'data' / shut}: ")


def test_data_in_a_folder_that_cannot_be_written_is_as_good_as_any(open_folder: Path, as_nobody: Run) -> None:
    data = open_folder / "data"
    MAKERS["yolo"](data)
    for path in (data, *data.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert as_nobody("data", "check", data, "--fix", open_folder / "fixed", "--workers", "0")[0] == 0
    assert as_nobody("data", "convert", data, open_folder / "voc", "--format", "voc")[0] == 0
    assert as_nobody("data", "diff", open_folder / "fixed", open_folder / "voc", "--exit-code")[0] == 0
    for path in (data, *data.rglob("*")):
        path.chmod(0o755)


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until() and time.monotonic() < end:
        time.sleep(0.02)
    assert until()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc for processes that are left")
def test_ctrl_c_ends_a_check_with_all_its_processes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (2500, 2500), np.uint8)
    Image.fromarray(noise).save(tmp_path / "data/0.png", compress_level=0)
    for number in range(1, 400):
        os.link(tmp_path / "data/0.png", tmp_path / f"data/{number}.png")
    command = [sys.executable, "-m", "tracesight", "data", "check", "data", "--workers", "2", "--fix", "fixed"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    _wait(lambda: len(children.read_text().split()) == 2)
    left = children.read_text().split()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "error: interrupted\n")
    _wait(lambda: not any(Path(f"/proc/{child}").exists() for child in left))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
