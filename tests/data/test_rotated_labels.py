"""Labels that ignore EXIF's rotation are turned as the picture is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_sets import tight
from PIL import Image

from tracesight.data.checks.picture_rotated import picture_rotated
from tracesight.data.facts import picture_facts
from tracesight.data.pictures import open_picture
from tracesight.data.record import Annotation, Record
from tracesight.scene.mask import Mask


def lying(path: Path, orientation: int) -> Record:
    """A picture with one white shape, stored so that EXIF turns it, and labels drawn on it as it is stored."""
    pixels = np.zeros((40, 60), np.uint8)
    pixels[5:15, 8:30] = 255
    pixels[15:22, 8:12] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    x1, y1, x2, y2 = (float(v) for v in tight(pixels > 0))
    corners = [[8.0, 5.0, 30.0, 5.0, 30.0, 15.0, 12.0, 15.0, 12.0, 22.0, 8.0, 22.0]]
    return Record(1, path, 60, 40, (
        Annotation(1, 1, (x1, y1, x2, y2), Mask.from_array(pixels > 0), keypoints=((8.0, 5.0, 2), (0.0, 0.0, 0))),
        Annotation(2, 1, (x1, y1, x2, y2), corners),
    ))  # fmt: skip


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_labels_follow_the_pixels(orientation: int, tmp_path: Path) -> None:
    record = lying(tmp_path / "a.png", orientation)
    mended, findings = picture_rotated(record, picture_facts(record.path))
    assert [finding.kind.code for finding in findings] == ["picture-rotated"]
    assert "labels are of the 60 × 40 pixels as stored" in findings[0].message
    assert mended is not None
    upright = open_picture(record.path)[..., 0] > 0
    assert (mended.height, mended.width) == upright.shape == (60, 40)
    for annotation in mended.annotations:
        assert annotation.box == tight(upright)
        mask = annotation.mask(60, 40)
        assert mask is not None
        assert (mask.to_array() == upright).mean() > 0.99
    assert (mended.annotations[0].mask(60, 40).to_array() == upright).all()  # type: ignore[union-attr]
    assert mended.annotations[0].keypoints is not None
    (x, y, seen), unseen = mended.annotations[0].keypoints
    left, top, right, bottom = tight(upright)
    assert (x in (left, right), y in (top, bottom), seen) == (True, True, 2)
    assert unseen == (0, 0, 0)
    assert picture_rotated(mended, picture_facts(record.path)) == (mended, ())


@pytest.mark.parametrize("orientation", [1, 2, 3, 4])
def test_where_the_size_says_nothing_there_is_a_note(orientation: int, tmp_path: Path) -> None:
    record = lying(tmp_path / "a.png", orientation)
    same, findings = picture_rotated(record, picture_facts(record.path))
    assert same is record
    assert [finding.kind.code for finding in findings] == ([] if orientation == 1 else ["picture-turned"])
