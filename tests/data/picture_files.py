"""Picture files that no library writes on request, and a DICOM file, for the tests of this room."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    path: Path, pixels: np.ndarray | None, *, size: tuple[int, int] | None = None, extra: bytes = b"", late: bytes = b""
) -> Path:
    """A PNG of (H, W, 1 to 4) uint8 or uint16, written by hand: Pillow writes no colours of 16 bits.

    pixels: None leaves them out, behind a header that claims `size` (height, width). extra, late: chunks before and
    after the pixels.
    """
    depth, kind, rows = 8, 2, b""
    height, width = size or (0, 0)
    if pixels is not None:
        height, width, channels = pixels.shape
        depth, kind = pixels.dtype.itemsize * 8, {1: 0, 2: 4, 3: 2, 4: 6}[channels]
        big = pixels.astype(pixels.dtype.newbyteorder(">"))
        rows = zlib.compress(b"".join(b"\0" + big[row].tobytes() for row in range(height)))
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + late + chunk(b"IEND", b"")
    )
    return path


def flat_png(path: Path, side: int) -> Path:
    """A sound black PNG of side × side pixels, 1 bit each: a thousandth of them in bytes, made without holding them."""
    squeezer, rows = zlib.compressobj(9), bytearray()
    row = b"\0" * (1 + -(-side // 8))
    for _ in range(side):
        rows += squeezer.compress(row)
    rows += squeezer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", bytes(rows)) + chunk(b"IEND", b""))
    return path


def dicom(path: Path, stored: np.ndarray, **elements: Any) -> Path:
    """A DICOM file of stored values (H, W), (frames, H, W) or (H, W, 3), and a patient who must not get out of it."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.SOPClassUID = SecondaryCaptureImageStorage
    data.PatientName, data.PatientID, data.PatientBirthDate = "Nobody^Knows", "P-4711", "19700101"
    data.Manufacturer, data.ManufacturerModelName, data.DeviceSerialNumber = "Maker", "Model 1", "SN-99"
    colour = stored.ndim == 3 and stored.shape[2] == 3
    if stored.ndim == 3 and not colour:
        data.NumberOfFrames = stored.shape[0]
    data.Rows, data.Columns = stored.shape[:2] if colour or stored.ndim == 2 else stored.shape[1:]
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        data.PlanarConfiguration = 0
    bits = stored.dtype.itemsize * 8
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    data.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.save_as(path, enforce_file_format=True)
    return path
