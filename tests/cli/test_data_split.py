"""`tracesight data split`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import Run
from PIL import Image


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """20 pictures in train and val, labelled as COCO has it."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 15), ("val", 5)):
        (tmp_path / "data" / split).mkdir(parents=True)
        images, annotations = [], []
        for number in range(count):
            pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            name = f"{number}.png"
            Image.fromarray(pixels).resize((48, 36), Image.Resampling.NEAREST).save(tmp_path / "data" / split / name)
            images.append({"id": number, "file_name": name, "width": 48, "height": 36})
            annotations.append({"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": [1, 2, 9, 9]})
        content = {"images": images, "annotations": annotations,
                   "categories": [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}]}  # fmt: skip
        (tmp_path / "data" / split / "labels.json").write_text(json.dumps(content))
    return tmp_path / "data"


def test_parts_are_written_and_told(data: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    status, text, _ = run("data", "split", data, "--out", out, "--val", "0.25", "--test", "0.25")
    assert status == 0
    assert text.splitlines()[:3] == [
        "train: 10 pictures, 10 objects", "val: 5 pictures, 5 objects", "test: 5 pictures, 5 objects",
    ]  # fmt: skip
    for part in ("train", "val", "test"):
        assert (out / part / "instances.json").is_file()
    arguments = ("data", "split", data, "--val", "0.25", "--test", "0.25", "--list", "--json")
    status, text, _ = run(*arguments, "--out", tmp_path / "list")
    assert status == 0
    said = json.loads(text)
    assert said["parts"]["val"]["categories"]["bolt"]["objects"] in (2, 3)
    assert (tmp_path / "list" / "split.json").read_bytes() == (out / "split.json").read_bytes()


def test_folds(data: Path, tmp_path: Path, run: Run) -> None:
    status, text, _ = run("data", "split", data, "--out", tmp_path / "out", "--folds", "4")
    assert status == 0
    assert text.count(": 5 pictures, 5 objects") == 4
    assert run("data", "manifest", tmp_path / "out" / "fold3")[1].startswith("train: 15 pictures")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--val", "0.6", "--test", "0.4"], "something remains for train"),
        (["--val", "0"], "something remains for train"),
        (["--val", "-0.1"], "something remains for train"),
        (["--folds", "1"], "needs 2 or more"),
        (["--folds", "3", "--test", "0.1"], "cannot go with --test"),
        (["--folds", "21"], "20 pictures, which 21 parts cannot share"),
        (["--group-by", "x"], "fits no picture"),
    ],
)
def test_mistakes_are_one_line(options: list[str], message: str, data: Path, tmp_path: Path, run: Run) -> None:
    status, _, error = run("data", "split", data, "--out", tmp_path / "out", *options)
    assert status == 2 and error.count("\n") == 1 and message in error
    assert not (tmp_path / "out").exists()


def test_the_target_may_not_lie_in_the_data(data: Path, run: Run) -> None:
    status, _, error = run("data", "split", data, "--out", data / "parts")
    assert status == 2 and "lies inside" in error
