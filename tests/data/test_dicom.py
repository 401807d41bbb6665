"""DICOM: pixels by the rule that is written down, make and model of the device, and nothing about the patient."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from picture_files import dicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_voi_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    RLELossless,
)

from tracesight.data.channels import as_rgb
from tracesight.data.dicom import dicom_sensor
from tracesight.data.pictures import open_picture, picture_size
from tracesight.errors import UserError
from tracesight.scene import Picture, Scene

RNG = np.random.default_rng(2)
STORED = RNG.integers(0, 4096, (6, 9), dtype=np.uint16)
TWELVE: dict[str, Any] = {"BitsStored": 12, "HighBit": 11}
SECRETS = ("Nobody", "Knows", "4711", "1970", "SN-99")


def unit(path: Path) -> np.ndarray:
    picture = open_picture(path, 1)
    assert picture.dtype == np.float32
    return picture[..., 0].astype(np.float64)


def test_without_a_window_the_stored_bits_are_the_range(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", STORED, **TWELVE)
    np.testing.assert_allclose(unit(path), STORED / 4095, atol=1e-6)
    assert picture_size(path) == (6, 9)
    rgb = open_picture(path)
    assert (rgb.shape, rgb.dtype) == ((6, 9, 3), np.uint8)
    np.testing.assert_array_equal(rgb, np.repeat(np.rint(STORED / 4095 * 255).astype(np.uint8)[..., None], 3, axis=2))
    # A rescale moves both ends with the values; white stays white.
    path = dicom(tmp_path / "b.dcm", STORED, RescaleSlope="2.5", RescaleIntercept="-1024", **TWELVE)
    np.testing.assert_allclose(unit(path), STORED / 4095, atol=1e-6)
    signed = STORED.astype(np.int16) - 2048
    path = dicom(tmp_path / "c.dcm", signed, **TWELVE)
    np.testing.assert_allclose(unit(path), STORED / 4095, atol=1e-6)
    path = dicom(tmp_path / "d.dcm", (STORED >> 4).astype(np.uint8))
    np.testing.assert_allclose(unit(path), (STORED >> 4) / 255, atol=1e-6)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", STORED, PhotometricInterpretation="MONOCHROME1", **TWELVE)
    np.testing.assert_allclose(unit(path), 1 - STORED / 4095, atol=1e-6)
    window = {"WindowCenter": "1000", "WindowWidth": "800"}
    plain = unit(dicom(tmp_path / "b.dcm", STORED, **window, **TWELVE))
    path = dicom(tmp_path / "c.dcm", STORED, PhotometricInterpretation="MONOCHROME1", **window, **TWELVE)
    np.testing.assert_allclose(unit(path), 1 - plain, atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_as_pydicom_has_them(tmp_path: Path, function: str) -> None:
    """In units after the rescale; of several windows the first."""
    path = dicom(
        tmp_path / "a.dcm", STORED, RescaleSlope="2", RescaleIntercept="-1000", WindowCenter=["1500", "40"],
        WindowWidth=["3000", "400"], VOILUTFunction=function, **TWELVE,
    )  # fmt: skip
    shown = unit(path)
    data = pydicom.dcmread(path)
    output = apply_voi_lut(data.pixel_array * 2.0 - 1000, data, index=0)
    low, high = -1000.0, 4095 * 2.0 - 1000  # what pydicom spreads its output over
    np.testing.assert_allclose(shown, np.clip((output - low) / (high - low), 0, 1), atol=1e-4)
    assert shown.min() < 0.2
    assert shown.max() > 0.8


def test_a_window_by_hand(tmp_path: Path) -> None:
    """PS3.3 C.11.2.1.2: y = (x - (c - 0.5)) / (w - 1) + 0.5, cut at both ends."""
    stored = np.array([[0, 50, 100, 101, 150, 200]], np.uint16)
    path = dicom(tmp_path / "a.dcm", stored, WindowCenter="100", WindowWidth="101")
    np.testing.assert_allclose(unit(path)[0], [0, 0.005, 0.505, 0.515, 1, 1], atol=1e-6)
    path = dicom(tmp_path / "b.dcm", stored, WindowCenter="100", WindowWidth="1")
    np.testing.assert_array_equal(unit(path)[0], [0, 0, 1, 1, 1, 1])
    path = dicom(tmp_path / "c.dcm", stored, WindowCenter="100", WindowWidth="0", VOILUTFunction="SIGMOID")
    with pytest.raises(UserError, match=r"c\.dcm: cannot be decoded \(DICOM: ValueError\)"):
        open_picture(path)


def test_a_modality_table(tmp_path: Path) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.ModalityLUTType = "US"
    table.LUTData = np.array([65535, 500, 20, 0], "<u2").tobytes()
    path = dicom(tmp_path / "a.dcm", np.array([[0, 1, 2, 3]], np.uint16), ModalityLUTSequence=[table], **TWELVE)
    np.testing.assert_allclose(unit(path)[0], np.array([65535, 500, 20, 0]) / 65535, atol=1e-6)


def test_colours_and_frames(tmp_path: Path) -> None:
    rgb = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    path = dicom(tmp_path / "rgb.dcm", rgb)
    np.testing.assert_array_equal(open_picture(path), rgb)
    assert open_picture(path, 1).shape == (6, 9, 1)
    path = dicom(tmp_path / "frames.dcm", np.stack([STORED, STORED // 2, STORED // 3]), **TWELVE)
    np.testing.assert_allclose(unit(path), STORED / 4095, atol=1e-6)
    index = np.array([[0, 1, 2]], np.uint8)
    colours = {
        "PhotometricInterpretation": "PALETTE COLOR",
        **{f"{name}PaletteColorLookupTableDescriptor": [3, 0, 16] for name in ("Red", "Green", "Blue")},
        **{
            f"{name}PaletteColorLookupTableData": np.array(values, "<u2").tobytes()
            for name, values in (("Red", [65535, 0, 0]), ("Green", [0, 65535, 0]), ("Blue", [0, 0, 65535]))
        },
    }
    path = dicom(tmp_path / "palette.dcm", index, **colours)
    np.testing.assert_array_equal(open_picture(path)[0], np.eye(3) * 255)
    with pytest.raises(UserError, match=r"rgb\.dcm: 3 channels where 5 are wanted"):
        open_picture(tmp_path / "rgb.dcm", 5)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressions_that_need_nothing_more(tmp_path: Path, syntax: str) -> None:
    plain = dicom(tmp_path / "plain.dcm", STORED, **TWELVE)
    data = pydicom.dcmread(plain)
    if syntax == RLELossless:
        data.compress(RLELossless, encoding_plugin="pydicom")
    else:  # pydicom writes none without more packages, Pillow does
        coded = io.BytesIO()
        Image.fromarray(STORED).save(coded, "JPEG2000", irreversible=False, no_jp2=True)
        data.PixelData = encapsulate([coded.getvalue()])
        data["PixelData"].VR = "OB"
        data.file_meta.TransferSyntaxUID = syntax
        data.BitsStored, data.HighBit = 16, 15
    path = tmp_path / "packed.dcm"
    data.save_as(path)
    np.testing.assert_allclose(unit(path), STORED / (4095 if syntax == RLELossless else 65535), atol=1e-6)


def test_jpeg_inside(tmp_path: Path) -> None:
    """Baseline JPEG in YBR becomes RGB again, to a level or three."""
    colour = np.full((16, 24, 3), (200, 120, 40), np.uint8)
    data = pydicom.dcmread(dicom(tmp_path / "plain.dcm", colour))
    coded = io.BytesIO()
    Image.fromarray(colour).save(coded, "JPEG", quality=95)
    data.PixelData = encapsulate([coded.getvalue()])
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.PhotometricInterpretation = "YBR_FULL_422"
    path = tmp_path / "packed.dcm"
    data.save_as(path)
    assert abs(open_picture(path).astype(int) - colour).max() <= 3


def test_what_is_not_decoded_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.dcm"
    for syntax, said in (
        (JPEGLossless, r"DICOM compressed as JPEG Lossless.*; save it uncompressed, or `pip install"),
        (DeflatedExplicitVRLittleEndian, "deflated DICOM is not read"),
    ):
        data = pydicom.dcmread(dicom(path, STORED, **TWELVE))
        data.file_meta.TransferSyntaxUID = syntax
        if syntax == JPEGLossless:
            data.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        data.save_as(path)
        with pytest.raises(UserError, match=rf"a\.dcm: {said}"):
            open_picture(path)
    big = dicom(path, STORED, Rows=60_000, Columns=60_000, **TWELVE)
    with pytest.raises(UserError, match=r"a\.dcm: 3600000000 pixels, and more than"):
        open_picture(big)
    none = pydicom.dcmread(dicom(path, STORED, **TWELVE))
    del none.Rows
    none.save_as(path)
    with pytest.raises(UserError, match=r"a\.dcm: a DICOM file without a picture"):
        picture_size(path)
    path.write_bytes(b"no DICOM" * 100)
    with pytest.raises(UserError, match=r"a\.dcm: not a DICOM file"):
        open_picture(path)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r"a\.dcm: DICOM needs pydicom; .* `pip install 'tracesight\[science\]'`"):
        open_picture(path)


def test_it_is_known_by_its_mark(tmp_path: Path) -> None:
    path = dicom(tmp_path / "IM000001", STORED, **TWELVE)
    np.testing.assert_allclose(unit(path), STORED / 4095, atol=1e-6)
    assert picture_size(path) == (6, 9)


def test_drawn_where_it_is_given(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", STORED, **TWELVE)
    scene = Scene(Picture(None, 9, 6, str(path)), ())
    with pytest.raises(UserError, match=r"a\.dcm: .*\(Pillow does not know its kind\); pass it to scene.draw"):
        scene.draw()
    drawn = scene.draw(Image.fromarray(as_rgb(open_picture(path))))
    assert drawn.width % 9 == 0


def test_nothing_about_the_patient_gets_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Not by what is returned, and not by what is said of a damaged file either, whatever value is damaged."""
    path = dicom(tmp_path / "a.dcm", STORED, RescaleSlope="1", WindowCenter="5", WindowWidth="9", **TWELVE)
    assert dicom_sensor(path) == ("Maker", "Model 1")
    content, rng = path.read_bytes(), np.random.default_rng(0)
    said, refused = [], 0
    for number in range(150):
        if number < 30:
            damaged = content[: len(content) * number // 30]
        else:
            place = int(rng.integers(132, len(content)))
            damaged = content[:place] + bytes([content[place] ^ int(rng.integers(1, 256))]) + content[place + 1 :]
        path.write_bytes(damaged)
        for function in (open_picture, picture_size, dicom_sensor):
            try:
                result = function(path)
                said.append("" if isinstance(result, np.ndarray) else repr(result))
            except UserError as error:
                refused += 1
                said.append(str(error))
                assert str(error).startswith(str(path))
                assert error.__cause__ is None, "a traceback would quote it"
    assert refused > 60
    printed = capfd.readouterr()
    everything = " ".join([*said, printed.out, printed.err])
    assert not [secret for secret in SECRETS if secret in everything]
