"""`tracesight data diff`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Run
from PIL import Image


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two states: one box was moved by Jo, one picture came."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2 + (name == "b")):
            Image.fromarray(np.full((20, 30, 3), 80 * number, np.uint8)).save(tmp_path / name / f"{number}.png")
        content = {
            "images": [{"id": n, "file_name": f"{n}.png", "width": 30, "height": 20} for n in range(2 + (name == "b"))],
            "annotations": [
                {"id": 1, "image_id": 0, "category_id": 4, "bbox": [1 + 3 * (name == "b"), 2, 18, 9], "annotator": "Jo"}
            ],
            "categories": [{"id": 4, "name": "nut"}],
        }
        (tmp_path / name / "labels.json").write_text(json.dumps(content))
    return tmp_path / "a", tmp_path / "b"


def test_changes_are_told(folders: tuple[Path, Path], run: Run) -> None:
    status, text, _ = run("data", "diff", *folders)
    assert status == 0
    assert text.splitlines()[:3] == ["picture: 1 added", "box: 1 moved", "  picture added: 2.png"]
    assert "by annotator-" in text and "Jo" not in text
    status, text, error = run("data", "diff", *folders, "--with-names", "--exit-code", "--json")
    assert (status, error.count("\n")) == (1, 1)
    said = json.loads(text)
    assert said["differ"] and said["changes"][1]["by"] == "Jo"
    assert run("data", "diff", folders[0], folders[0], "--exit-code") == (0, "no difference\n", "")


def test_manifests_stand_for_their_data(folders: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    run("data", "manifest", folders[0], "--out", tmp_path / "a.json")
    run("data", "manifest", folders[1], "--out", tmp_path / "b.json")
    status, text, _ = run("data", "diff", tmp_path / "a.json", tmp_path / "b.json")
    assert status == 0
    assert text.startswith("picture: 1 added\nlabels: 1 changed\n")
    assert run("data", "diff", tmp_path / "a.json", folders[1])[1] == text
    shutil.rmtree(folders[0])
    assert run("data", "diff", tmp_path / "a.json", tmp_path / "a.json")[1] == "no difference\n"


def test_mistakes_are_one_line(folders: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    for arguments, message in [
        ((folders[0], tmp_path / "none"), "no such file or folder"),
        ((*folders, "--key", tmp_path / "none"), "cannot be read"),
        ((*folders, "--tolerance", "-1"), "tolerance"),
    ]:
        status, _, error = run("data", "diff", *arguments)
        assert status == 2 and error.count("\n") == 1 and message in error
