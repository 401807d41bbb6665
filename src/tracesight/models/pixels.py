"""Mean and deviation of each channel: what pixels in 0–1 become before they reach a network.

They are no weights, since the names of those are the field's: a bundle's config holds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Of RGB in 0–1. Where the channels are others, and nobody says how they are spread, the middle of the range.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN_MEAN, PLAIN_STD = 0.5, 0.25


def pixel_statistics(
    in_channels: int, pixels: Mapping[str, Sequence[float]] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, those of `pixels` where given.

    Raises ValueError unless there are `in_channels` of each, the deviations above 0.
    """
    if pixels is None and in_channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    if pixels is None:
        return (PLAIN_MEAN,) * in_channels, (PLAIN_STD,) * in_channels
    mean, std = (tuple(float(value) for value in pixels.get(key, ())) for key in ("mean", "std"))
    if len(mean) != in_channels or len(std) != in_channels or min(std) <= 0:
        raise ValueError(f"pixels: give mean, and std above 0, of each of the {in_channels} channels")
    return mean, std


def remember_pixels(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    """Give `model` the buffers `pixel_mean` and `pixel_std` (1, C, 1, 1), which are not in its state."""
    for name, values in (("pixel_mean", mean), ("pixel_std", std)):
        model.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)


def standardised(model: nn.Module, images: Tensor) -> Tensor:
    """Pictures (N, C, H, W) in 0–1 with mean 0 and deviation 1 over the data, as `model` remembers them."""
    held: Any = model
    return (images - held.pixel_mean) / held.pixel_std
