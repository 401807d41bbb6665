"""Pictures of every kind come in as upright 8-bit RGB, and damaged ones as one line."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tracesight.data.pictures import open_picture, picture_size
from tracesight.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    """A picture is stored turned, with the orientation that turns it back."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    image = Image.fromarray(RGB)
    stored = image if orientation == 1 else image.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    stored.save(path, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    np.testing.assert_array_equal(open_picture(path), RGB)
    assert picture_size(path) == (12, 20)


def test_every_mode_becomes_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(RGB)
    for mode, suffix in (("L", ".png"), ("1", ".png"), ("LA", ".png"), ("RGBA", ".png"), ("CMYK", ".tif")):
        converted = image.convert(mode)
        path = tmp_path / f"{mode}{suffix}"
        converted.save(path)
        picture = open_picture(path)
        assert (picture.shape, picture.dtype) == ((12, 20, 3), np.uint8)
        np.testing.assert_array_equal(picture, np.asarray(converted.convert("RGB")))
    few = Image.fromarray(np.tile(np.array([[0], [1], [2]], np.uint8), (1, 4)), "L").convert("P")
    few.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    few.save(tmp_path / "palette.png", transparency=bytes([0, 128, 255]))
    np.testing.assert_array_equal(open_picture(tmp_path / "palette.png")[:, 0], np.diag([255] * 3))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_not_cut_off(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 128, 257, 32896, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / f"deep{suffix}")
    picture = open_picture(tmp_path / f"deep{suffix}")
    np.testing.assert_array_equal(picture[0, :, 0], [0, 0, 1, 128, 255])
    assert (picture == picture[..., :1]).all()


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((3, 3), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(UserError, match=r"f\.tif: floating-point"):
        open_picture(tmp_path / "f.tif")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
def test_truncated_pictures_are_one_line_that_names_them(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"whole{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    for share in (0.0, 0.02, 0.5, 0.9):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(UserError) as caught:
            open_picture(cut)
        assert str(cut) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    for path in (tmp_path / "text.png", tmp_path / "nothing.png", tmp_path):
        for function in (open_picture, picture_size):
            with pytest.raises(UserError) as caught:
                function(path)
            assert str(path) in str(caught.value)


def test_decompression_bombs_are_refused_from_the_header(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    for function in (open_picture, picture_size):
        with pytest.raises(UserError, match=r"bomb\.png: more than \d+ pixels"):
            function(tmp_path / "bomb.png")
