"""A linear classifier of features in closed form: ridge regression onto the categories.

Hoerl and Kennard, "Ridge Regression" (1970); the penalty is the one with the fewest mistakes when each picture is left
out in turn, which takes no more than the diagonal of the hat matrix (Allen, "The Relationship between Variable
Selection and Data Augmentation and a Method for Prediction", 1974).

M pictures, D numbers a feature, K categories.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

PENALTIES = tuple(10.0**power for power in range(-6, 4))  # times the pictures; features have deviation 1


class Ridge(NamedTuple):
    """scores = (features - mean) / deviation @ weights + bias. penalty: the one chosen, times the pictures."""

    mean: Tensor
    deviation: Tensor
    weights: Tensor
    bias: Tensor
    penalty: float

    def scores(self, features: Tensor) -> Tensor:
        """(N, K) of features (N, D); the largest is the answer."""
        return (features.double() - self.mean) / self.deviation @ self.weights + self.bias


def ridge(features: Tensor, labels: Tensor, categories: int) -> Ridge:
    """Fit features (M, D) and labels (M,) int64 in [0, K), in float64."""
    x = features.double()
    mean, deviation = x.mean(0), x.std(0, correction=0)
    deviation = torch.where(deviation > 1e-12, deviation, torch.ones_like(deviation))
    x = (x - mean) / deviation
    y = torch.nn.functional.one_hot(labels, categories).double()
    bias, count = y.mean(0), x.shape[0]
    values, vectors = torch.linalg.eigh(x.T @ x)
    projected, target = x @ vectors, vectors.T @ (x.T @ (y - bias))
    chosen: tuple[float, float, Tensor] | None = None
    for penalty in PENALTIES:
        inverse = 1.0 / (values.clamp(min=0) + penalty * count)
        fitted = projected @ (inverse[:, None] * target) + bias
        leverage = (projected.square() * inverse).sum(1) + 1.0 / count
        # What would be said of a picture by all others.
        left_out = y - (y - fitted) / (1.0 - leverage).clamp(min=1e-9)[:, None]
        right = float((left_out.argmax(1) == labels).double().mean())
        if chosen is None or right > chosen[0]:
            chosen = (right, penalty, vectors @ (inverse[:, None] * target))
    assert chosen is not None
    return Ridge(mean, deviation, chosen[2], bias, chosen[1])
