"""Test-time augmentation as a user asks for it, and as `models/augmented.py` takes it."""

from __future__ import annotations

import torch
from torch import Tensor

from tracesight.bundle import Bundle
from tracesight.errors import UserError
from tracesight.models.keypoint_head import keypoints_of


def views_of(text: str) -> tuple[tuple[float, bool], ...]:
    """The views besides the first that "flip,0.75,1.25" asks for: (factor of the size, mirrored). Raises UserError."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    try:
        factors = [1.0, *(float(word) for word in words if word != "flip")]
    except ValueError:
        factors = [0.0]
    if not words or not all(0.1 <= factor <= 10 for factor in factors):
        raise UserError(
            f"tta '{text}': name flip, and factors of the picture's size from 0.1 to 10, as in flip,0.75,1.25"
        )
    every = [(factor, mirrored) for factor in factors for mirrored in (False, *([True] if "flip" in words else []))]
    return tuple(every[1:])


def mirrored_points(bundle: Bundle, device: torch.device) -> Tensor:
    """(classes, K) int64, by label which keypoint each one is in a mirror; 0 is background."""
    count = keypoints_of(bundle.model)
    places = torch.arange(count).repeat(len(bundle.categories) + 1, 1)
    for label, number in enumerate(bundle.categories, start=1):
        known = bundle.keypoints[number].mirrored if number in bundle.keypoints else ()
        places[label, : len(known)] = torch.tensor(known, dtype=torch.int64)
    return places.to(device)
