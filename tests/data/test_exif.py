"""What cameras write into files is read from the headers of JPEG, PNG and WebP, and nothing that was not asked for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from picture_files import dicom
from PIL import ExifTags, Image

from tracesight.data.exif import Exif, read_exif

SUFFIXES = ("JPEG", "PNG", "WEBP")
TIME = "2024:05:06 07:08:09"


def tagged(form: str, size: tuple[int, int] = (40, 30), **tags: object) -> bytes:
    """A picture with EXIF tags by name, those of GPS among them."""
    exif = Image.Exif()
    camera, gps = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    for name, value in tags.items():
        if name in ExifTags.GPS.__members__:
            gps[ExifTags.GPS[name]] = value
        elif name in ("Make", "Model"):
            exif[ExifTags.Base[name]] = value
        else:
            camera[ExifTags.Base[name]] = value
    file = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(file, form, exif=exif)
    return file.getvalue()


CAMERA = {
    "Make": "Maker", "Model": "M 1", "LensModel": "50 mm", "DateTimeOriginal": TIME, "BodySerialNumber": "0042",
    "CameraOwnerName": "Jo", "GPSLatitudeRef": "S", "GPSLatitude": (33.0, 30.0, 0.0), "GPSLongitudeRef": "E",
    "GPSLongitude": (151.0, 0.0, 36.0),
}  # fmt: skip


def test_make_and_model_of_tiff_and_dicom(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "TIFF", tiffinfo={0x010F: "Maker", 0x0110: "M 1", 0x013B: "Jo"})
    scan = dicom(tmp_path / "scan", np.zeros((4, 5), np.uint16))
    with scan.open("rb", buffering=0) as stream:
        for content, model in ((file.getvalue(), "M 1"), (scan.read_bytes(), "Model 1"), (stream, "Model 1")):
            assert read_exif(content, private=True) == Exif(make="Maker", model=model)
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "TIFF")
    assert read_exif(file.getvalue()) is None
    assert read_exif(scan.read_bytes()[:160]) is None


@pytest.mark.parametrize("form", SUFFIXES)
def test_camera_lens_and_time_but_no_serial_number_and_place(form: str) -> None:
    found = Exif("Maker", "M 1", "50 mm", "2024-05-06T07:08:09")
    assert read_exif(tagged(form, **CAMERA)) == found
    assert read_exif(tagged(form, (900, 700), **CAMERA)) == found  # in more chunks than one


@pytest.mark.parametrize("form", SUFFIXES)
def test_serial_number_and_place_where_they_are_asked_for(form: str, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(tagged(form, **CAMERA))
    with (tmp_path / "picture").open("rb") as file:
        found = read_exif(file, private=True)
    assert found == Exif("Maker", "M 1", "50 mm", "2024-05-06T07:08:09", "0042", -33.5, 151.01)


@pytest.mark.parametrize("form", [*SUFFIXES, "TIFF", "BMP"])
def test_pictures_without_are_none(form: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (9, 7)).save(file, form)
    assert read_exif(file.getvalue()) is None


def test_times_with_and_without_offset_and_those_that_are_none() -> None:
    def time(**tags: str) -> str | None:
        found = read_exif(tagged("JPEG", Make="Maker", **tags))
        return found.captured_at if found else "none"

    assert time(DateTimeOriginal=TIME, OffsetTimeOriginal="+02:00") == "2024-05-06T07:08:09+02:00"
    assert time(DateTimeOriginal=TIME, OffsetTimeOriginal="   :  ") == "2024-05-06T07:08:09"
    assert time(DateTimeOriginal="0000:00:00 00:00:00") is None
    assert time(DateTimeOriginal="    :  :     :  :  ") is None
    assert time() is None


def test_texts_are_cleaned_and_places_that_cannot_be_are_left_out() -> None:
    found = read_exif(
        tagged("JPEG", Make="A\x01\n B\0rest", Model=" ", GPSLatitude=(95.0, 0.0, 0.0), GPSLongitude=(1.0, 0.0, 0.0)),
        True,
    )
    assert found == Exif(make="A B")
    assert len(getattr(read_exif(tagged("PNG", Make="x" * 5000)), "make", "")) == 200


@pytest.mark.parametrize("form", SUFFIXES)
def test_damaged_files_have_none_and_do_no_harm(form: str) -> None:
    whole = tagged(form, **CAMERA)
    assert read_exif(b"") is None
    for end in range(0, len(whole), 7):
        read_exif(whole[:end], True)
    for at in range(0, min(len(whole), 400)):
        read_exif(whole[:at] + b"\xff" + whole[at + 1 :], True)
        read_exif(whole[:at] + b"\0" + whole[at + 1 :], True)
    claims = b"\x89PNG\r\n\x1a\n" + (1 << 31).to_bytes(4, "big") + b"eXIf" + bytes(99)
    assert read_exif(claims) is None
