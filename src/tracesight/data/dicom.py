"""DICOM pictures, by pydicom of the extra `science`: pixels, and the make and model of the device. Nothing else leaves.

Patient, study and institution are never asked for, so no object, message or file of Tracesight can hold them; what
pydicom says of an error is not passed on either, as it may quote a value. (What is burnt into the pixels stays there.)

How stored values of grey pictures become 0–1 (DICOM PS3.3, C.11.1, C.11.2 and C.7.6.3.1):
1. the modality look-up table, or rescale slope and intercept;
2. the first window of the file, by its function (LINEAR, LINEAR_EXACT, SIGMOID); without a window the range that the
   stored bits can hold. VOI look-up tables are not applied;
3. MONOCHROME1 is inverted, so that white is the highest value everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tracesight.data.limits import check_pixels
from tracesight.errors import UserError

MAGIC = slice(128, 132)  # where "DICM" stands

_TAGS = [
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "LUTDescriptor",
    "LUTData", "WindowCenter", "WindowWidth", "VOILUTFunction",
]  # fmt: skip
_SENSOR = ["Manufacturer", "ManufacturerModelName"]
_LONGEST = 64  # characters of such a name
_DEFLATED = "1.2.840.10008.1.2.1.99"


def read_dicom(path: Path | str) -> np.ndarray:
    """The first frame: grey (H, W, 1) float32 in 0–1, or colour (H, W, 3) uint8 or uint16.

    Raises UserError, one line: not installed, not DICOM, no pixels, too many, a compression that nothing
    here decodes, damage.
    """
    with _reading(path) as pydicom:
        facts = _facts(pydicom, path, _TAGS)
        height, width = _size(facts, path)
        check_pixels(path, height, width)
        _check_compression(pydicom, facts, path)
        pixels = np.asarray(_decoded(pydicom, facts, path))
        if pixels.shape[:2] != (height, width):
            raise ValueError("not of the size that it says")
        return pixels


def dicom_size(path: Path | str) -> tuple[int, int]:
    """(height, width) from the header. Raises UserError."""
    with _reading(path) as pydicom:
        return _size(_facts(pydicom, path, ["Rows", "Columns"]), path)


def dicom_sensor(file: Path | str | BinaryIO) -> tuple[str | None, str | None]:
    """Make and model of the device: Manufacturer and ManufacturerModelName. Raises UserError."""
    with _reading(file if isinstance(file, Path | str) else "DICOM") as pydicom:
        facts = _facts(pydicom, file, _SENSOR)
        make, model = (_name(facts.get(keyword, None)) for keyword in _SENSOR)
        return make, model


@contextmanager
def _reading(path: Path | str) -> Iterator[Any]:
    """pydicom. Whatever goes wrong in the block becomes a UserError that says where, and no more than its kind.

    pydicom's remarks on odd values are switched off: they quote them.
    """
    try:
        import pydicom
        import pydicom.config
        import pydicom.errors
    except ImportError:
        raise UserError(f"{path}: DICOM needs pydicom; install it by `pip install 'tracesight[science]'`") from None
    try:
        with pydicom.config.disable_value_validation():
            yield pydicom
    except UserError:
        raise
    except pydicom.errors.InvalidDicomError:
        raise UserError(f"{path}: not a DICOM file (it lacks the mark DICM); replace or remove it") from None
    except MemoryError:
        raise UserError(f"{path}: the picture does not fit into memory; cut it into tiles") from None
    except Exception as error:
        reason = f"cannot be decoded (DICOM: {type(error).__name__})"
        raise UserError(f"{path}: {reason}; replace or remove the picture") from None


def _facts(pydicom: Any, file: Path | str | BinaryIO, keywords: list[str]) -> Any:
    """The elements of these names and no others."""
    return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=keywords, force=False)


def _name(value: Any) -> str | None:
    """A short text (VR LO). Of a damaged file it may reach into other elements, and is then none."""
    text = "" if value is None else str(value).strip()
    return text if 0 < len(text) <= _LONGEST and text.isprintable() else None


def _size(facts: Any, path: Path | str) -> tuple[int, int]:
    height, width = (int(facts.get(keyword, 0) or 0) for keyword in ("Rows", "Columns"))
    if height < 1 or width < 1:
        raise UserError(f"{path}: a DICOM file without a picture; remove it")
    return height, width


def _check_compression(pydicom: Any, facts: Any, path: Path | str) -> None:
    syntax = getattr(facts.file_meta, "TransferSyntaxUID", None)
    if syntax is None or not syntax.is_transfer_syntax:
        raise UserError(f"{path}: a DICOM file that does not say how it is encoded; save it anew")
    if syntax == _DEFLATED:
        raise UserError(f"{path}: deflated DICOM is not read; save it as Explicit VR Little Endian")
    try:
        decodes = pydicom.pixels.get_decoder(syntax).is_available
    except NotImplementedError:
        decodes = False
    if not decodes:
        raise UserError(
            f"{path}: DICOM compressed as {syntax.name}; save it uncompressed, or `pip install 'pylibjpeg[all]'`"
        )


def _decoded(pydicom: Any, facts: Any, path: Path | str) -> np.ndarray:
    from pydicom.pixels.processing import apply_color_lut

    kept = pydicom.Dataset()
    stored = pydicom.pixels.pixel_array(path, index=0, ds_out=kept)
    if stored.dtype.kind == "f":
        raise UserError(f"{path}: floating-point pixels have no known range; save the picture with 8 or 16 bits")
    kind = facts.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        return apply_color_lut(stored, kept)
    if int(facts.get("SamplesPerPixel", 1)) == 1:
        return _grey(stored, facts)[..., None]
    return stored


def _grey(stored: np.ndarray, facts: Any) -> np.ndarray:
    """Stored values (H, W) as float32 in 0–1, by the rule above."""
    from pydicom.pixels.processing import apply_modality_lut

    bits, signed = int(facts.BitsStored), bool(facts.PixelRepresentation)
    ends = np.array([-(1 << bits - 1), (1 << bits - 1) - 1] if signed else [0, (1 << bits) - 1])
    values = apply_modality_lut(np.clip(stored, *ends), facts).astype(np.float64)
    centre, width = _first(facts.get("WindowCenter", None)), _first(facts.get("WindowWidth", None))
    if centre is not None and width is not None:
        unit = _windowed(values, centre, width, str(facts.get("VOILUTFunction", None) or "LINEAR"))
    else:
        if "ModalityLUTSequence" in facts:
            ends = np.array([0, (1 << int(facts.ModalityLUTSequence[0].LUTDescriptor[2])) - 1])
        else:
            ends = apply_modality_lut(ends, facts)
        low, high = float(ends.min()), float(ends.max())
        unit = (values - low) / (high - low)
    unit = np.clip(unit, 0.0, 1.0).astype(np.float32)
    return np.float32(1) - unit if facts.PhotometricInterpretation == "MONOCHROME1" else unit


def _windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3 with an output of 0 to 1; not clipped. Raises ValueError for no width."""
    if width <= 0:
        raise ValueError("a window without width")
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -700.0, 700.0)))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if width <= 1:
        return (values > centre - 0.5).astype(np.float64)
    return (values - (centre - 0.5)) / (width - 1.0) + 0.5


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, str | float | int):
        return float(value)
    return float(value[0]) if len(value) else None
