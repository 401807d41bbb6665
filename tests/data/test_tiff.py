"""TIFF files of many channels, in every way that programs lay them out, keep their channels and their bits."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tracesight.data.pictures import open_picture, picture_size
from tracesight.errors import UserError

FIVE = np.random.default_rng(1).integers(0, 65536, (6, 8, 5), dtype=np.uint16)
PLANES = np.moveaxis(FIVE, 2, 0)
CONTIG: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"}
UNIT = FIVE / np.float32(65535)

# What is written and how, of five channels of 16 bits.
LAYOUTS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "by pixel": (FIVE, CONTIG),
    "by pixel, big-endian": (FIVE, {**CONTIG, "byteorder": ">"}),
    "by pixel, BigTIFF": (FIVE, {**CONTIG, "bigtiff": True}),
    "by pixel, tiles": (FIVE, {**CONTIG, "tile": (16, 16)}),
    "by pixel, deflate": (FIVE, {**CONTIG, "compression": "zlib"}),
    "by pixel, deflate with predictor": (FIVE, {**CONTIG, "compression": "zlib", "predictor": True}),
    "by plane": (PLANES, {"photometric": "minisblack", "planarconfig": "separate"}),
    "by page": (PLANES, {"photometric": "minisblack"}),
    "by page, deflate": (PLANES, {"photometric": "minisblack", "compression": "zlib"}),
    "by page, nothing said": (PLANES, {"photometric": "minisblack", "metadata": None}),
    "ImageJ": (PLANES, {"imagej": True, "metadata": {"axes": "CYX"}}),
    "ImageJ, with depth and time": (
        np.stack([np.stack([PLANES, PLANES // 2]), np.stack([PLANES // 3, PLANES // 5])]),
        {"imagej": True, "metadata": {"axes": "TZCYX"}},
    ),
    "OME": (PLANES, {"ome": True, "metadata": {"axes": "CYX"}, "photometric": "minisblack"}),
    "OME, depth innermost": (
        np.stack([PLANES, PLANES // 2], axis=1),
        {"ome": True, "metadata": {"axes": "CZYX"}, "photometric": "minisblack"},
    ),
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_five_channels_of_sixteen_bits(tmp_path: Path, layout: str) -> None:
    pixels, options = LAYOUTS[layout]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **options)
    picture = open_picture(path, 5)
    assert (picture.dtype, picture.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_array_equal(picture, UNIT)
    assert picture_size(path) == (6, 8)
    if "page" in layout:  # nobody says that the pages are channels: asked for one or three, the first is a picture
        np.testing.assert_array_equal(open_picture(path, 1), UNIT[..., :1])
        assert open_picture(path, 3).shape == (6, 8, 3)
    else:
        np.testing.assert_array_equal(open_picture(path, None), UNIT)
        for wanted in (1, 3):
            with pytest.raises(UserError, match=rf"a\.tif: 5 channels where {wanted} .* train with in_channels=5"):
                open_picture(path, wanted)
    with pytest.raises(UserError, match=r"a\.tif: \d channels? where 4 are wanted"):
        open_picture(path, 4)


def test_other_depths_and_kinds(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    eight = (FIVE >> 8).astype(np.uint8)
    tifffile.imwrite(path, eight, **CONTIG)
    picture = open_picture(path, 5)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, eight)
    tifffile.imwrite(path, FIVE[..., :3], photometric="rgb")  # three are RGB of 8 bits, one is their luma of 16
    assert abs(open_picture(path).astype(int) - UNIT[..., :3] * 255).max() < 1
    luma = FIVE[..., :3] @ np.array([0.299, 0.587, 0.114]) / 65535
    np.testing.assert_allclose(open_picture(path, 1)[..., 0], luma, atol=2e-5)
    tifffile.imwrite(path, FIVE[..., :4], photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(open_picture(path, 4), UNIT[..., :4])
    assert open_picture(path).shape == (6, 8, 3)
    tifffile.imwrite(path, FIVE[..., :4], photometric="rgb", extrasamples=["unspecified"])  # infrared, say
    np.testing.assert_array_equal(open_picture(path, 4), UNIT[..., :4])
    with pytest.raises(UserError, match="4 channels where 3 are wanted"):
        open_picture(path)
    tifffile.imwrite(path, FIVE[..., :2], extrasamples=["unassalpha"], **CONTIG)
    np.testing.assert_array_equal(open_picture(path, 2), UNIT[..., :2])
    np.testing.assert_array_equal(open_picture(path, 1), UNIT[..., :1])
    tifffile.imwrite(path, FIVE[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(open_picture(path, 1), (65535 - FIVE[..., :1]) / np.float32(65535))
    tifffile.imwrite(path, eight[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(open_picture(path, 1), 255 - eight[..., :1])
    for dtype, what in ((np.float32, "floating-point"), (np.int16, "signed"), (np.uint32, "32-bit")):
        tifffile.imwrite(path, FIVE.astype(dtype), **CONTIG)
        with pytest.raises(UserError, match=rf"a\.tif: {what} pixels have no known range"):
            open_picture(path, 5)


def test_twelve_bits_fill_the_range(tmp_path: Path) -> None:
    """Two pixels in three bytes; nothing here writes that, so it is written by hand."""
    entries = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
               (277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 3)]  # fmt: skip
    head = struct.pack("<2sHI", b"II", 42, 12) + bytes([0xFF, 0xF8, 0x00, 0])
    path = tmp_path / "a.tif"
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    path.write_bytes(head + struct.pack("<H", len(entries)) + rows + bytes(4))
    np.testing.assert_allclose(open_picture(path, 1)[0, :, 0], [1.0, 2048 / 4095], atol=1e-5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_many_channels_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    back = {1: (0, False), 2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (1, False), 7: (1, True),
            8: (3, False)}  # fmt: skip
    turns, mirror = back[orientation]
    stored = np.rot90(FIVE, turns)
    stored = stored[:, ::-1] if mirror else stored
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ascontiguousarray(stored), extratags=[(274, 3, 1, orientation, True)], **CONTIG)
    np.testing.assert_array_equal(open_picture(path, 5), UNIT)
    assert picture_size(path) == (6, 8)


def test_pages_that_are_not_wanted_are_not_read(tmp_path: Path) -> None:
    """The last page of a series in time is cut off; the first one is read all the same."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.stack([PLANES] * 3), imagej=True, metadata={"axes": "TCYX"})
    path.write_bytes(path.read_bytes()[:-50])
    np.testing.assert_array_equal(open_picture(path, 5), UNIT)


def test_without_the_extra_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, FIVE, **CONTIG)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(
        UserError, match=r"a\.tif: .* needs tifffile; install it by `pip install 'tracesight\[science\]'`"
    ):
        open_picture(path, 5)
    assert picture_size(path) == (6, 8)


def patched(path: Path, tag: int, value: int) -> Path:
    """The first directory says another value of a tag that fits into its entry."""
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    for number in range(struct.unpack_from("<H", content, start)[0]):
        entry = start + 2 + 12 * number
        if struct.unpack_from("<H", content, entry)[0] == tag:
            kind = struct.unpack_from("<H", content, entry + 2)[0]
            struct.pack_into("<H" if kind == 3 else "<I", content, entry + 8, value)
            path.write_bytes(content)
            return path
    raise AssertionError(f"no tag {tag}")


def test_compressions_that_nothing_decodes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    path = tmp_path / "a.tif"
    for number, name in ((5, "LZW"), (7, "JPEG"), (34925, "LZMA"), (50000, "ZSTD")):
        tifffile.imwrite(path, FIVE, **CONTIG)
        with pytest.raises(
            UserError, match=rf"a\.tif: a TIFF of this kind with {name} compression; save it .* deflate"
        ):
            open_picture(patched(path, 259, number), 5)


def test_claims_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for tag in (256, 257):
        tifffile.imwrite(path, FIVE, **CONTIG)
        with pytest.raises(UserError, match=r"a\.tif: \d+ pixels, and more than 178956970"):
            open_picture(patched(path, tag, 4_000_000_000), 5)
    tifffile.imwrite(path, FIVE, **CONTIG)
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    struct.pack_into("<I", content, start + 2 + 4, 0xFFFFFFF0)  # as many values of the first tag
    path.write_bytes(content)
    for channels in (3, 5):
        with pytest.raises(UserError, match=r"a\.tif: cannot be decoded \(its tags claim more than the file holds"):
            open_picture(path, channels)


def test_pieces_that_swell_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, FIVE, compression="zlib", **CONTIG)
    with tifffile.TiffFile(path) as file:
        offset = path.stat().st_size
        assert len(file.pages[0].dataoffsets) == 1
    bomb = zlib.compress(bytes(100_000_000), 9)
    path.write_bytes(path.read_bytes() + bomb)
    patched(patched(path, 273, offset), 279, len(bomb))
    with pytest.raises(UserError, match=r"a\.tif: cannot be decoded \(a piece of it is larger than its place"):
        open_picture(path, 5)


@pytest.mark.parametrize("layout", ["by pixel", "by pixel, deflate", "by plane", "ImageJ", "OME"])
def test_damage_is_one_line(tmp_path: Path, layout: str) -> None:
    """Cut anywhere, or with any byte of its header changed, it is read or refused, and nothing else happens."""
    pixels, options = LAYOUTS[layout]
    whole, path = tmp_path / "whole.tif", tmp_path / "a.tif"
    tifffile.imwrite(whole, pixels, **options)
    content, rng = whole.read_bytes(), np.random.default_rng(0)
    damaged = [content[: len(content) * share // 12] for share in range(12)]
    for place in rng.integers(4, min(400, len(content)), 40):
        damaged.append(content[:place] + bytes([content[place] ^ int(rng.integers(1, 256))]) + content[place + 1 :])
    refused = 0
    for number, version in enumerate(damaged):
        path.write_bytes(version)
        try:
            picture = open_picture(path, 5)
        except UserError as error:
            refused += 1
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)
        else:
            if number < 12:  # what was cut off was none of its pixels
                np.testing.assert_array_equal(picture, UNIT)
    assert refused >= 12
