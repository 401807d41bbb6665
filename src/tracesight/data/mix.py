"""Two pictures become one, and so do their labels: mixup and CutMix.

Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018), section 2; Yun et al., "CutMix: Regularization
Strategy to Train Strong Classifiers with Localizable Features" (2019), section 3.1. Partners are neighbours in the
batch, whose order is random already, so that what a picture is mixed with depends neither on ranks nor on parts.

Letters: N pictures of S × S pixels and C channels; K categories.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tracesight.data.random import generator


@dataclass(frozen=True)
class Mix:
    """Parameters of the beta distributions that shares are drawn from; 0 leaves one out (not both), of both each comes
    half the time."""

    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(self, images: np.ndarray, shares: np.ndarray, keys: np.ndarray) -> None:
        """Mix images (N, S, S, C) float32 and shares of categories (N, K) in place, N even.

        keys: (N, 2), the seed and the draw number of each picture; a pair's numbers belong to its first one.
        """
        for first in range(0, len(images), 2):
            seed, draw = (int(number) for number in keys[first])
            rng = generator(seed, draw, "mix")
            which, share = rng.random(), rng.random(2)
            mixes = self.mixup > 0 and (self.cutmix == 0 or which < 0.5)
            alpha = self.mixup if mixes else self.cutmix
            own = float(rng.beta(alpha, alpha))
            pair = images[first : first + 2]
            if mixes:
                pair[:] = np.float32(own) * pair + np.float32(1 - own) * pair[::-1]
            else:
                own = _swapped(pair, own, share)
            labels = shares[first : first + 2]
            labels[:] = np.float32(own) * labels + np.float32(1 - own) * labels[::-1]


def _swapped(pair: np.ndarray, own: float, centre: np.ndarray) -> float:
    """Swap a rectangle of about 1 - own of the area between two pictures; the share that each keeps of itself."""
    height, width = pair.shape[1:3]
    h, w = (side * math.sqrt(1 - own) for side in (height, width))
    top, bottom = (round(min(max(centre[0] * height + half, 0), height)) for half in (-h / 2, h / 2))
    left, right = (round(min(max(centre[1] * width + half, 0), width)) for half in (-w / 2, w / 2))
    pair[:, top:bottom, left:right] = pair[::-1, top:bottom, left:right].copy()
    return 1 - (bottom - top) * (right - left) / (height * width)
