"""Scores of categories into probabilities, on the CPU and in double precision."""

from __future__ import annotations

import numpy as np


def probabilities(scores: np.ndarray, several: bool, temperature: float = 1.0) -> np.ndarray:
    """(n, K) float64 in 0–1: the softmax of scores (n, K) by `temperature`, or of `several` categories the sigmoid."""
    scaled = scores.astype(np.float64) / temperature
    if several:
        return 1 / (1 + np.exp(-np.clip(scaled, -700, 700)))
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def averaged(chances: np.ndarray, several: bool) -> np.ndarray:
    """Scores (K,) whose probabilities at temperature 1 are the mean of `chances` (views, K)."""
    mean = np.clip(chances.mean(axis=0), 1e-12, 1 - 1e-12)
    return np.log(mean / (1 - mean)) if several else np.log(mean)
