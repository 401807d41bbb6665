"""Pictures are decoded in full before a training, and the first bad one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_sets import make_set, write_json, write_set
from picture_files import png
from PIL import Image

from tracesight.data.checks import check_masks, check_pictures
from tracesight.data.formats import read_dataset
from tracesight.errors import UserError

SIZES = [(20, 30), (25, 25), (40, 30)]


def test_a_clean_set_passes_and_reports_progress(tmp_path: Path) -> None:
    dataset = make_set(tmp_path, SIZES, suffix=".jpg")
    seen: list[tuple[int, int]] = []
    check_pictures(dataset, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    check_masks(dataset)


def test_the_first_culprit_is_named_and_the_others_counted(tmp_path: Path) -> None:
    dataset = make_set(tmp_path, SIZES, suffix=".jpg")
    truncated = tmp_path / "images/picture1.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-200])
    (tmp_path / "images/picture2.jpg").unlink()
    with pytest.raises(UserError, match=r"picture1\.jpg: cannot be decoded .*truncated.*\(and 1 more") as caught:
        check_pictures(dataset)
    assert "\n" not in str(caught.value)


def test_a_picture_that_would_fill_the_memory(tmp_path: Path) -> None:
    data = write_set(tmp_path, SIZES, objects=0)
    png(tmp_path / "images/picture1.png", None, size=(30_000, 30_000))
    data["images"][1].update(width=30_000, height=30_000)
    write_json(tmp_path, data)
    with pytest.raises(UserError, match=r"picture1\.png: 900000000 pixels, and more than 178956970 could exhaust"):
        check_pictures(read_dataset(tmp_path))


def test_a_picture_of_another_size_than_its_labels(tmp_path: Path) -> None:
    data = write_set(tmp_path, SIZES)
    Image.new("RGB", (20, 30)).save(tmp_path / "images/picture0.png")
    with pytest.raises(UserError, match=r"picture0\.png: the picture is 20 × 30 pixels .* its labels say 30 × 20"):
        check_pictures(read_dataset(tmp_path))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, upright it is as large as its labels say
    Image.new("RGB", (20, 30)).save(tmp_path / "images/picture0.png", exif=exif)
    check_pictures(read_dataset(tmp_path))
    data["annotations"][1]["segmentation"] = None
    data["annotations"][2].update(segmentation=None, iscrowd=1)
    write_json(tmp_path, data)
    with pytest.raises(UserError, match=r"annotation 1 on picture0\.png has no mask; add masks"):
        check_masks(read_dataset(tmp_path))
