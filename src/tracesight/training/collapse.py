"""Whether features have collapsed: how far they are spread, and over how many directions.

n features of dim numbers and length 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Below either, all pictures look alike to the network. A random network is not far above; both rise as it learns.
LEAST_DEVIATION, LEAST_RANK = 0.05, 1.5
EARLY = 0.1  # share of the run in which nothing is said
FILLING = 0.01  # share of the run that a queue may take to fill


def deviation(features: Tensor) -> Tensor:
    """Mean over the numbers of their deviation over the pictures, times √dim: 1 where spread over the whole sphere,
    0 where all are the same (Chen and He, "Exploring Simple Siamese Representation Learning", 2021, section 4.1).
    """
    return features.float().std(dim=0, correction=0).mean() * features.shape[1] ** 0.5


def rank(features: Tensor) -> Tensor:
    """Effective rank, 1 to min(n, dim): the exponential of the entropy of the singular values (Roy and Vetterli, "The
    Effective Rank", 2007; of features Garrido et al., "RankMe", 2023). NaN where features are not finite."""
    # On the CPU, where eigenvalues of small matrices are quick; singular values are their roots.
    held = features.double().cpu()
    if not bool(torch.isfinite(held).all()):  # the watch over losses will say so
        return held.new_tensor(torch.nan)
    gram = held.T @ held if held.shape[0] >= held.shape[1] else held @ held.T
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    shares = values / values.sum().clamp(min=1e-30)
    return torch.exp(-(shares * shares.clamp(min=1e-30).log()).sum())


def complaint(step: int, total: int, spread: float, directions: float) -> str | None:
    """One line where features have collapsed after the first tenth of a run; else None."""
    if step < EARLY * total or (spread >= LEAST_DEVIATION and directions >= LEAST_RANK):
        return None
    return (
        f"step {step}: the features have collapsed (deviation {spread:.3f} of 1, effective rank {directions:.1f}): all "
        "pictures look alike to the network; lower lr, lengthen warmup_steps, or look at temperature and momentum_key"
    )


def slow_to_fill(queue: int, new: int, total: int) -> str | None:
    """One line where random vectors wait in the queue for long; else None. queue: its keys; new: those of a step.

    As long as they do, what tells a key best from the rest is to look like no random vector, in one way for all
    pictures. It takes tens of times as many steps to come back from there.
    """
    steps = -(-queue // new)
    if steps <= FILLING * total:
        return None
    fits = max(1, int(FILLING * total)) * new
    return (
        f"the queue holds random vectors for the first {steps} of {total} steps, in which all pictures learn to look "
        f"alike; in a run as short as this, queue={min(fits, queue)} gets away from there sooner"
    )
