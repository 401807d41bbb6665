"""Colour changes as one affine map a picture, so that their cost does not grow with their number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, what Pillow and torchvision call grey
# RGB to YIQ (NTSC): hue is an angle in the plane of I and Q.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB = np.linalg.inv(_YIQ)
# Principal components of ImageNet's pixels, RGB in 0–1: their spreads and, as columns, their directions.
_SPREADS = np.array([0.2175, 0.0188, 0.0045])
_DIRECTIONS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
_HUE = math.pi / 4  # the largest turn at strength 1


def jitter(image: np.ndarray, draws: Sequence[float] | np.ndarray, strength: float) -> np.ndarray:
    """Change brightness, contrast, saturation and hue of an (H, W, C) float32 picture in 0–1.

    draws: four uniform numbers in [0, 1). strength s: the three factors are uniform in [max(0, 1 - s), 1 + s], the turn
    of the hue in ±45° × s. Contrast is about the picture's mean grey, saturation about each pixel's own. The result is
    clipped to 0–1 once, at the end. Where C is not 3 there are no colours: brightness and contrast alone are changed,
    by one factor for all channels, contrast about each channel's own mean.
    """
    low, spread = max(0.0, 1.0 - strength), 1.0 + strength - max(0.0, 1.0 - strength)
    brightness, contrast, saturation = (low + spread * float(u) for u in draws[:3])
    if image.shape[2] != 3:
        return _lit(image, brightness, contrast)
    angle = (2.0 * float(draws[3]) - 1.0) * _HUE * strength
    matrix = colour_matrix(saturation, angle) * (brightness * contrast)
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))  # arithmetic on planes is several times faster
    mean = brightness * sum(float(w) * float(plane.mean()) for w, plane in zip(LUMA, planes))
    return _affine(planes, matrix.astype(np.float32), np.float32((1.0 - contrast) * mean))


def colour_matrix(saturation: float, angle: float) -> np.ndarray:
    """(3, 3) float64 that changes RGB's saturation by a factor and turns its hue by `angle`, in radians of YIQ.

    Both leave greys as they are: each row sums to 1. Saturation 0 is grey.
    """
    turn = np.eye(3)
    turn[1:, 1:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    grey = np.outer(np.ones(3), LUMA)
    return _RGB @ turn @ _YIQ @ (saturation * np.eye(3) + (1.0 - saturation) * grey)


def light(image: np.ndarray, shifts: Sequence[float] | np.ndarray) -> np.ndarray:
    """Shift an (H, W, 3) float32 picture in 0–1 along the main directions of the colours of ImageNet's pixels.

    Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks" (2012), section 4.1. shifts:
    three numbers from a normal distribution, of deviation 0.1 in the paper. Clipped to 0–1.
    """
    shift = _DIRECTIONS @ (_SPREADS * np.asarray(shifts, np.float64))
    return np.clip(image + shift.astype(np.float32), 0.0, 1.0)


def _lit(image: np.ndarray, brightness: float, contrast: float) -> np.ndarray:
    """Brightness and contrast of each channel by itself, clipped."""
    out = np.empty(image.shape, np.float32)
    for channel in range(image.shape[2]):
        plane = image[..., channel]
        shift = np.float32((1.0 - contrast) * brightness * float(plane.mean()))
        np.clip(plane * np.float32(brightness * contrast) + shift, 0.0, 1.0, out=out[..., channel])
    return out


def _affine(planes: np.ndarray, matrix: np.ndarray, shift: np.float32) -> np.ndarray:
    """matrix @ rgb + shift, clipped, of (3, H, W) planes as (H, W, 3).

    Written out: a BLAS library may give other last bits with another number of threads.
    """
    out = np.empty((*planes.shape[1:], 3), np.float32)
    term = np.empty_like(planes[0])
    for channel in range(3):
        value = planes[0] * matrix[channel, 0]
        for other in (1, 2):
            value += np.multiply(planes[other], matrix[channel, other], out=term)
        value += shift
        np.clip(value, 0.0, 1.0, out=out[..., channel])
    return out
