"""How the values of each channel are spread over the pictures that a network learns from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tracesight.data.channels import unit
from tracesight.data.dataset import Dataset
from tracesight.data.pictures import open_picture
from tracesight.data.random import generator

PICTURES = 256  # at most so many are looked at
_LEAST = 1e-5  # of a deviation, less than a step of 16 bits: below it a channel is constant, and is not blown up


def channel_spread(dataset: Dataset, channels: int, seed: int) -> dict[str, list[float]]:
    """{"mean": …, "std": …} of each channel in 0–1, over all pixels of at most `PICTURES` pictures drawn from `seed`.

    The deviation of a channel that is the same everywhere is given as 1. Rounded to six digits, so that the same
    pictures give the same numbers everywhere. Raises UserError as `open_picture` does.
    """
    count = min(PICTURES, len(dataset))
    chosen = np.sort(np.argsort(generator(seed, 0, "channel spread").random(len(dataset)), kind="stable")[:count])
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda index: _sums(open_picture(dataset[int(index)].path, channels)), chosen))
    pixels = float(sum(row[0] for row in rows))
    mean, square = (np.sum([row[place] for row in rows], axis=0) / pixels for place in (1, 2))
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    deviation = np.where(deviation < _LEAST, 1.0, deviation)
    return {"mean": _rounded(mean), "std": _rounded(deviation)}


def _sums(pixels: np.ndarray) -> tuple[int, Any, Any]:
    """Number of pixels; sum and sum of squares (C,) of each channel in 0–1."""
    planes = (unit(pixels[..., channel]).astype(np.float64) for channel in range(pixels.shape[2]))
    sums = np.array([(plane.sum(), np.square(plane).sum()) for plane in planes])
    return pixels.shape[0] * pixels.shape[1], sums[:, 0], sums[:, 1]


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
