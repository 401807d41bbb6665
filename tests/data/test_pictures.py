"""Pictures of every kind come in upright and with the channels that are wanted, and damaged ones as one line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import chunk, flat_png, png
from PIL import Image

from tracesight.data.channels import as_rgb
from tracesight.data.pictures import open_picture, picture_size
from tracesight.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
GREY, ALPHA = RGB[..., :1], RGB[..., 1:2]
DEEP = RNG.integers(0, 65536, (12, 20, 4), dtype=np.uint16)
PALETTE = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 99, 199]], np.uint8)
INDEX = RNG.integers(0, 4, (12, 20), dtype=np.uint8)


def palette() -> Image.Image:
    image = Image.fromarray(INDEX, "L").convert("P")
    image.putdata(INDEX.ravel().tolist())
    image.putpalette(PALETTE.tobytes())
    return image


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def as_grey(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("L"))[..., None]


BLACK_AND_WHITE = np.where(GREY > 127, np.uint8(255), np.uint8(0))
# suffix, what is saved and how, and what it holds: (H, W, n) uint8, whose last channel is transparency where n is even
KINDS: dict[str, tuple[str, Callable[[], Image.Image], dict[str, Any], np.ndarray]] = {
    "grey png": (".png", lambda: Image.fromarray(GREY[..., 0]), {}, GREY),
    "grey tiff": (".tif", lambda: Image.fromarray(GREY[..., 0]), {}, GREY),
    "grey bmp": (".bmp", lambda: Image.fromarray(GREY[..., 0]), {}, GREY),
    "grey pgm": (".pgm", lambda: Image.fromarray(GREY[..., 0]), {}, GREY),
    "grey alpha png": (".png", lambda: Image.fromarray(RGB[..., :2], "LA"), {}, RGB[..., :2]),
    "bits png": (".png", lambda: Image.fromarray(GREY[..., 0]).point(lambda v: 255 * (v > 127), "1"), {},
                 BLACK_AND_WHITE),
    "bits tiff, packed": (".tif", lambda: Image.fromarray(GREY[..., 0]).point(lambda v: 255 * (v > 127), "1"),
                          {"compression": "group4"}, BLACK_AND_WHITE),
    "rgb png": (".png", lambda: Image.fromarray(RGB), {}, RGB),
    "rgb bmp": (".bmp", lambda: Image.fromarray(RGB), {}, RGB),
    "rgb ppm": (".ppm", lambda: Image.fromarray(RGB), {}, RGB),
    "rgb webp": (".webp", lambda: Image.fromarray(RGB), {"lossless": True}, RGB),
    "rgb tiff": (".tif", lambda: Image.fromarray(RGB), {}, RGB),
    "rgb tiff, LZW": (".tif", lambda: Image.fromarray(RGB), {"compression": "tiff_lzw"}, RGB),
    "rgb tiff, deflate": (".tif", lambda: Image.fromarray(RGB), {"compression": "tiff_deflate"}, RGB),
    "rgba png": (".png", lambda: Image.fromarray(np.concatenate([RGB, ALPHA], 2)), {}, np.concatenate([RGB, ALPHA], 2)),
    "rgba tiff": (".tif", lambda: Image.fromarray(np.concatenate([RGB, ALPHA], 2)), {},
                  np.concatenate([RGB, ALPHA], 2)),
    "rgba webp": (".webp", lambda: Image.fromarray(np.concatenate([RGB, ALPHA], 2)), {"lossless": True, "exact": True},
                  np.concatenate([RGB, ALPHA], 2)),
    "palette png": (".png", palette, {}, PALETTE[INDEX]),
    "palette bmp": (".bmp", palette, {}, PALETTE[INDEX]),
    "palette gif": (".gif", palette, {}, PALETTE[INDEX]),
    "palette tiff": (".tif", palette, {}, PALETTE[INDEX]),
    "palette png, 2 bits, transparent": (".png", palette, {"bits": 2, "transparency": bytes([0, 128, 255, 7])},
        np.concatenate([PALETTE[INDEX], np.array([0, 128, 255, 7], np.uint8)[INDEX][..., None]], 2)),
    "cmyk tiff": (".tif", lambda: Image.fromarray(RGB).convert("CMYK"), {}, RGB),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_gives_the_channels_that_are_wanted(tmp_path: Path, kind: str) -> None:
    suffix, image, options, held = KINDS[kind]
    path = saved(image(), tmp_path / f"a{suffix}", **options)
    alpha = held.shape[2] % 2 == 0
    plain = held[..., :-1] if alpha else held
    wanted = {
        3: np.repeat(plain, 3, axis=2) if plain.shape[2] == 1 else plain,
        1: as_grey(plain) if plain.shape[2] == 3 else plain,
        held.shape[2]: held,
        None: plain,
    }
    for channels, expected in wanted.items():
        picture = open_picture(path, channels)
        assert picture.dtype == np.uint8
        assert picture.flags.c_contiguous
        np.testing.assert_array_equal(picture, expected, err_msg=f"{channels} channels")
    assert picture_size(path) == (12, 20)
    with pytest.raises(UserError, match=r"a\.\w+: \d channels? where 5 are wanted; .* train with in_channels=\d"):
        open_picture(path, 5)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_of_every_kind(tmp_path: Path, mode: str) -> None:
    """Flat colours come through the compression to a level or three."""
    colour = np.full((16, 16, 3), (200, 120, 40), np.uint8)
    path = saved(Image.fromarray(colour).convert(mode), tmp_path / "a.jpg", quality=95)
    expected = np.repeat(as_grey(colour), 3, axis=2) if mode == "L" else colour
    assert abs(open_picture(path).astype(int) - expected).max() <= 3
    assert abs(open_picture(path, 1).astype(int) - as_grey(colour)).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [".png", ".tif", ".webp", ".jpg", "late.png", "xmp.png", "xmp.tif", "profile.png"])
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    """A picture is stored turned, with the orientation that turns it back, in any place that programs put it."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    image = Image.fromarray(np.repeat(np.repeat(RGB[:2, :3], 16, 0), 16, 1) if kind == ".jpg" else RGB)
    stored = image if orientation == 1 else image.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    xmp = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    path = tmp_path / f"turned{kind}"
    if kind == "late.png":
        png(path, np.asarray(stored), late=chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    elif kind == "xmp.png":
        png(path, np.asarray(stored), extra=chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    elif kind == "profile.png":
        text = f"\nexif\n{len(exif.tobytes())}\n{exif.tobytes().hex()}\n".encode()
        png(path, np.asarray(stored), extra=chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)))
    elif kind == "xmp.tif":
        stored.save(path, tiffinfo={700: xmp})
    else:
        stored.save(path, exif=exif, **({"lossless": True} if kind == ".webp" else {"quality": 100, "subsampling": 0}))
    difference = abs(open_picture(path).astype(int) - np.asarray(image))
    assert difference.max() <= (8 if kind == ".jpg" else 0)
    assert picture_size(path) == (image.height, image.width)


def test_damaged_exif_is_no_exif(tmp_path: Path) -> None:
    """Photographs with a damaged block are many, and every viewer shows them."""
    for number, block in enumerate((b"garbage", b"II*\0\xff\xff\0\0", b"MM\0*\0\0\0\x08\xff\xff")):
        path = saved(Image.fromarray(RGB), tmp_path / f"{number}.png", exif=b"Exif\0\0" + block)
        np.testing.assert_array_equal(open_picture(path), RGB)
        assert picture_size(path) == (12, 20)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_are_scaled_not_cut_off(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 128, 257, 32896, 65535]], np.uint16)
    path = saved(Image.fromarray(levels), tmp_path / f"deep{suffix}")
    picture = open_picture(path)
    np.testing.assert_array_equal(picture[0, :, 0], [0, 0, 1, 128, 255])
    assert (picture == picture[..., :1]).all()
    one = open_picture(path, 1)
    assert (one.shape, one.dtype) == ((1, 5, 1), np.float32)
    np.testing.assert_array_equal(one[..., 0], levels / np.float32(65535))


def test_colours_of_sixteen_bits_in_png_keep_their_upper_eight(tmp_path: Path) -> None:
    for channels, plain in ((3, DEEP[..., :3]), (4, DEEP)):
        path = png(tmp_path / f"{channels}.png", plain)
        np.testing.assert_array_equal(open_picture(path), (plain >> 8).astype(np.uint8)[..., :3])


def test_pixels_without_a_known_range_are_refused(tmp_path: Path) -> None:
    for dtype, what in ((np.float32, "floating-point"), (np.int32, "signed")):
        Image.fromarray(np.ones((3, 3), dtype)).save(tmp_path / "f.tif")
        with pytest.raises(UserError, match=rf"f\.tif: {what} pixels have no known range"):
            open_picture(tmp_path / "f.tif")


def test_shown_to_people() -> None:
    five = np.zeros((4, 50, 5), np.float32)
    five[..., 1] = np.linspace(0.01, 0.02, 200).reshape(4, 50)
    five[..., 2] = 1.0
    seen = as_rgb(five)
    assert (seen.shape, seen.dtype) == ((4, 50, 3), np.uint8)
    assert seen[..., 0].max() == seen[..., 2].max() == 0  # constant: nothing to stretch
    assert seen[0, 0, 1] == 0
    assert seen[-1, -1, 1] == 255
    assert abs(int(seen[2, 0, 1]) - 128) <= 2
    two = RGB[..., :2]
    np.testing.assert_array_equal(as_rgb(two), np.repeat(two[..., :1], 3, axis=2))
    np.testing.assert_array_equal(as_rgb(RGB), RGB)


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
    (tmp_path / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # would start a program
    os.mkfifo(tmp_path / "pipe.png")
    reasons = {
        "text.png": "not a picture", "page.png": "not a picture", "nothing.png": "no such picture",
        "": "a folder, where a picture is wanted", "pipe.png": "a pipe or device",
    }  # fmt: skip
    paths = {tmp_path / name: reason for name, reason in reasons.items()} | {Path("/dev/zero"): "a pipe or device"}
    for path, reason in paths.items():
        for function in (open_picture, picture_size):
            with pytest.raises(UserError, match=reason) as caught:
                function(path)
            assert str(path) in str(caught.value)


def test_decompression_bombs_are_refused_from_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = flat_png(tmp_path / "bomb.png", 30_000)
    assert bomb.stat().st_size < 120_000
    for path, pixels in (
        (bomb, 900_000_000),
        (png(tmp_path / "claim.png", None, size=(60_000, 60_000)), 3_600_000_000),
    ):
        for function in (open_picture, picture_size):
            began = time.monotonic()
            with pytest.raises(UserError, match=rf"{path.name}: {pixels} pixels, .* TRACESIGHT_MAX_PIXELS={pixels}"):
                function(path)
            assert time.monotonic() - began < 1
    small = saved(Image.fromarray(RGB), tmp_path / "small.png")
    monkeypatch.setenv("TRACESIGHT_MAX_PIXELS", "239")
    with pytest.raises(UserError, match=r"small\.png: 240 pixels, .*TRACESIGHT_MAX_PIXELS=240"):
        open_picture(small)
    monkeypatch.setenv("TRACESIGHT_MAX_PIXELS", "240")
    assert open_picture(small).shape == (12, 20, 3)
    for nonsense in ("many", "-3", "0", "1e9"):
        monkeypatch.setenv("TRACESIGHT_MAX_PIXELS", nonsense)
        with pytest.raises(UserError, match=f"TRACESIGHT_MAX_PIXELS={nonsense}: give a whole number"):
            open_picture(small)


def test_the_limit_can_be_raised(tmp_path: Path) -> None:
    """In a process of its own: Pillow's limit is one for the whole process."""
    bomb = flat_png(tmp_path / "bomb.png", 14_000)
    code = f"from tracesight.data.pictures import picture_size; print(picture_size({str(bomb)!r}))"
    for limit, said in (("", "196000000 pixels, and more"), ("196000000", "(14000, 14000)")):
        environment = {**os.environ, "TRACESIGHT_MAX_PIXELS": limit}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert said in done.stdout + done.stderr


def test_texts_that_swell_are_refused(tmp_path: Path) -> None:
    swollen = zlib.compress(b"x" * 50_000_000, 9)
    for name, start in (("iTXt", b"key\0\1\0\0\0"), ("zTXt", b"key\0\0"), ("iCCP", b"key\0\0")):
        path = png(tmp_path / f"{name}.png", RGB, extra=chunk(name.encode(), start + swollen))
        assert path.stat().st_size < 100_000
        with pytest.raises(UserError, match=rf"{name}\.png: cannot be decoded \(Decompressed data too large"):
            open_picture(path)
