"""`tracesight data manifest`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Run
from PIL import Image


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures, one box."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(2):
        Image.fromarray(np.full((20, 30, 3), 90 * number, np.uint8)).save(folder / f"{number}.png")
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 30, "height": 20} for n in range(2)],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 4, "bbox": [1, 2, 8, 9], "annotator": "Jo"}],
        "categories": [{"id": 4, "name": "nut"}],
    }
    (folder / "labels.json").write_text(json.dumps(content))
    return folder


def test_summary_file_and_json_agree(data: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out" / "manifest.json"
    status, text, _ = run("data", "manifest", data, "--out", out, "--title", "nuts")
    assert status == 0
    assert "all: 2 pictures, 1 objects\n  nut: 1 objects on 1\n" in text
    written = json.loads(out.read_text())
    assert f"root of pictures: {written['roots']['pictures']}" in text
    status, text, _ = run("data", "manifest", data, "--json", "--title", "nuts")
    head = json.loads(text)
    assert head.pop("out") is None
    assert head == {key: value for key, value in written.items() if key not in ("pictures", "label_files")}
    assert "Jo" not in text
    assert "Jo" in run("data", "manifest", data, "--with-names")[1]


def test_verify_names_what_differs(data: Path, tmp_path: Path, run: Run) -> None:
    file = tmp_path / "manifest.json"
    run("data", "manifest", data, "--out", file)
    assert run("data", "manifest", data, "--verify", file) == (0, "the same: 3 files, every one read\n", "")
    shutil.copy(data / "0.png", data / "1.png")
    status, text, error = run("data", "manifest", data, "--verify", file)
    assert (status, text) == (1, "changed: 1.png\n")
    assert "differs from" in error and "1 changed" in error
    (data / "1.png").unlink()
    status, text, error = run("data", "manifest", data, "--verify", file, "--json")
    assert status == 1
    assert json.loads(text) == {"files": 3, "changed": [], "missing": ["1.png"], "added": []}
    (data / "labels.json").write_text("{")
    status, text, error = run("data", "manifest", data, "--verify", file)
    assert (status, text) == (1, "changed: labels.json\nmissing: 1.png\n")
    assert "not looked for" in error


def test_mistakes_are_one_line(data: Path, tmp_path: Path, run: Run) -> None:
    def complaint(*arguments: str | Path) -> str:
        status, _, error = run("data", "manifest", *arguments)
        assert status == 2 and error.count("\n") == 1
        return error

    (tmp_path / "key").write_text("short")
    assert "can be guessed" in complaint(data, "--key", tmp_path / "key")
    assert "cannot be read" in complaint(data, "--key", tmp_path / "none")
    assert "a date like" in complaint(data, "--published", "May 2024")
    assert "no such file or folder" in complaint(tmp_path / "none")
    assert "not a manifest" in complaint(data, "--verify", data / "labels.json")
    assert "cannot be written" in complaint(data, "--out", data / "0.png" / "manifest.json")
    (data / "1.png").unlink()
    assert "1.png: cannot be read (No such file or directory); restore" in complaint(data)


def test_croissant_names_the_files_from_where_it_lies(data: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    status, text, error = run(
        "data", "manifest", data, "--out", out / "m.json", "--croissant", out / "sub" / "c.json", "--title", "nuts",
        "--published", "2024-05-06",
    )  # fmt: skip
    assert status == 0
    assert text.endswith(f"written: {out / 'm.json'}\nwritten: {out / 'sub' / 'c.json'}\n")
    assert error == "note: Croissant asks for more: --licence, --controller\n"
    urls = [
        file.get("contentUrl") or file["includes"]
        for file in json.loads((out / "sub" / "c.json").read_text())["distribution"]
    ]
    assert urls == ["../m.json", "../../data/labels.json", ["../../data/*.png"]]
    status, _, error = run("data", "manifest", data, "--croissant", tmp_path / "c.json")
    assert status == 2 and "needs --out" in error
