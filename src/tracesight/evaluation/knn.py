"""Features judged by their neighbours: weighted k nearest neighbours.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (2018), section 3.4: the k nearest
by cosine similarity s vote for their categories with weight exp(s / T).

N pictures asked about, M pictures with labels, D numbers a feature, K categories.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

AT_ONCE = 512  # pictures compared with the bank at a time


class Neighbours(NamedTuple):
    """indices: (N, k) places in the bank, nearest first. similarities: (N, k), cosines."""

    indices: Tensor
    similarities: Tensor


def neighbours(features: Tensor, bank: Tensor, k: int) -> Neighbours:
    """The `k` nearest of bank (M, D) to each of features (N, D), or all where there are fewer."""
    held = F.normalize(bank.float(), dim=1)
    found = [
        (F.normalize(part.float(), dim=1) @ held.T).topk(min(k, held.shape[0]), dim=1)
        for part in features.split(AT_ONCE)
    ]
    return Neighbours(torch.cat([part.indices for part in found]), torch.cat([part.values for part in found]))


def votes(near: Neighbours, labels: Tensor, categories: int, temperature: float) -> Tensor:
    """(N, K) votes of the neighbours; labels: (M,) int64 in [0, K)."""
    weights = torch.exp((near.similarities.double() - 1.0) / temperature)  # less 1: a common factor, and no overflow
    scores = torch.zeros((near.indices.shape[0], categories), dtype=torch.float64, device=weights.device)
    return scores.scatter_add_(1, labels.to(weights.device)[near.indices], weights)


def accuracy(scores: Tensor, labels: Tensor, most: int = 1) -> float:
    """Share of the pictures whose label is among the `most` highest of scores (N, K)."""
    best = scores.topk(min(most, scores.shape[1]), dim=1).indices
    return float((best == labels.to(best.device)[:, None]).any(dim=1).double().mean())
