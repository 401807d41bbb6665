"""Pixels with as many channels as a network takes, upright, and pixels for people to look at.

Letters: H, W height and width; C channels. Pixels are uint8, uint16 (all 16 bits in use), or float32 in 0–1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tracesight.errors import UserError

# ITU-R BT.601, in Pillow's fixed point: what it and torchvision call grey.
_LUMA = (19595, 38470, 7471)
_IN_EIGHT_BITS = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)  # of each value of 16 bits the nearest
_SHOWN = (0.5, 99.5)  # percentiles that are stretched to black and white


def fit_channels(pixels: np.ndarray, channels: int | None, path: Path | str, *, alpha: bool = False) -> np.ndarray:
    """Pixels (H, W, n) as (H, W, channels): uint8, or float32 in 0–1 where they are of more than 8 bits.

    Args:
        channels: 3 gives RGB of 8 bits, always: grey is repeated. 1 gives grey: of RGB its luma. Any other number is
            what the picture must have. None: as many as it has.
        alpha: the last of the n is transparency, which is dropped unless it makes up the number.

    Raises:
        UserError: the picture has another number of channels; it names file, number and what was wanted.
    """
    if alpha and pixels.shape[2] != channels:
        pixels = pixels[..., :-1]
    has = pixels.shape[2]
    if channels == 3 and has in (1, 3):
        pixels = _eight_bits(pixels)
    if channels not in (None, has):
        if (has, channels) == (1, 3):
            pixels = np.repeat(pixels, 3, axis=2)
        elif (has, channels) == (3, 1):
            pixels = _grey(pixels)
        else:
            raise wrong_channels(path, has, channels)
    return np.ascontiguousarray(pixels if pixels.dtype == np.uint8 else unit(pixels))


def wrong_channels(path: Path | str, has: int, channels: int | None) -> UserError:
    """What to say of a picture with another number of channels than is wanted."""
    return UserError(
        f"{path}: {has} {'channel' if has == 1 else 'channels'} where {channels} {'is' if channels == 1 else 'are'} "
        f"wanted; give pictures with {channels}, or train with in_channels={has}"
    )


def unit(pixels: np.ndarray) -> np.ndarray:
    """Pixels of any of the three kinds as float32 in 0–1."""
    if pixels.dtype == np.float32:
        return pixels
    return pixels / np.float32(np.iinfo(pixels.dtype).max)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, C) turned and mirrored as an EXIF orientation, 1 to 8, says that they must be."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def upright_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """(height, width) after `upright`."""
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """Pixels (H, W, C), uint8 or float32, as (H, W, 3) uint8 RGB to look at.

    The first three channels become red, green and blue; of fewer than three the first is shown in grey. Floats are
    stretched, channel by channel, so that one pixel in 200 becomes black and one in 200 white: what 16 bits hold is
    often all in a small part of their range.
    """
    pixels = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    low, high = np.percentile(pixels, _SHOWN, axis=(0, 1))
    stretched = (pixels - low) / np.where(high > low, high - low, 1.0)
    return np.rint(np.clip(stretched, 0.0, 1.0) * 255).astype(np.uint8)


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return _IN_EIGHT_BITS[pixels]
    return np.rint(pixels * np.float32(255)).astype(np.uint8)


def _grey(pixels: np.ndarray) -> np.ndarray:
    """The luma (H, W, 1) of RGB, of its own kind.

    Written out: a BLAS library may give other last bits with another number of threads.
    """
    red, green, blue = np.moveaxis(pixels, 2, 0)
    if pixels.dtype == np.float32:
        r, g, b = (np.float32(weight / 65536) for weight in _LUMA)
        return (red * r + green * g + blue * b)[..., None]
    # 65535 × 65536 and the half that rounds just fit into 32 bits.
    total = red * np.uint32(_LUMA[0]) + green * np.uint32(_LUMA[1]) + blue * np.uint32(_LUMA[2])
    return ((total + np.uint32(32768)) >> 16).astype(pixels.dtype)[..., None]
