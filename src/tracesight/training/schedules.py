"""Learning rates as pure functions of the step, so that a resumed run needs nothing but its step."""

from __future__ import annotations

import math
from collections.abc import Sequence


def warm_up(step: int, steps: int) -> float:
    """Factor in (0, 1]: linear over the first `steps` steps, reaching 1 at step `steps` − 1."""
    return min(1.0, (step + 1) / steps) if steps > 0 else 1.0


def cosine(step: int, total: int, *, floor: float = 0.0) -> float:
    """Factor from 1 at step 0 down to `floor` at `total`: half a cosine (SGDR, Loshchilov and Hutter 2017)."""
    progress = min(1.0, step / total) if total > 0 else 1.0
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))


def staircase(step: int, total: int, milestones: Sequence[float], *, factor: float = 0.1) -> float:
    """Factor that drops by `factor` at each milestone, a fraction of `total` (COCO's 1x schedule: 0.67 and 0.89)."""
    return factor ** sum(step >= milestone * total for milestone in milestones)


def key_momentum(step: int, total: int, *, start: float, rises: bool) -> float:
    """How slowly a key encoder follows at step `step` (from 0): `start`, or half a cosine from there to 1.

    MoCo v3 (Chen, Xie and He 2021), section 4.3 of the paper's first version: "momentum schedule".
    """
    return 1.0 - (1.0 - start) * cosine(step, total) if rises else start


def learning_rate(
    step: int,
    total: int,
    *,
    lr: float,
    warmup_steps: int = 0,
    schedule: str = "cosine",
    milestones: Sequence[float] = (),
    final_lr_fraction: float = 0.0,
) -> float:
    """Learning rate of step `step` (from 0) of `total`.

    Warm-up multiplies the schedule's beginning and does not shift it.

    Args:
        schedule: "cosine" ends at `lr` × `final_lr_fraction`; "step" divides by 10 at each of `milestones`, and
            `final_lr_fraction` is the least that it falls to.
    """
    if schedule == "cosine":
        factor = cosine(step, total, floor=final_lr_fraction)
    else:
        factor = max(final_lr_fraction, staircase(step, total, milestones))
    return lr * factor * warm_up(step, warmup_steps)
