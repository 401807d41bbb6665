"""Objects of sizes and shapes that no anchor of the detectors comes near."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tracesight.data.checks.survey import Survey
from tracesight.data.finding import Finding, Kind

KIND = Kind(
    "anchor-mismatch", "note", "sets with objects that no default anchor comes near",
    "give image_size, or anchor_sizes and anchor_ratios in model_args, that fit them; or cut pictures into tiles",
)  # fmt: skip
# The defaults of the R-CNNs with a pyramid and of `train`.
SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
RATIOS = (0.5, 1.0, 2.0)  # height over width
SHORT_SIDE, LONG_SIDE = 800, 1333  # pixels that a picture is scaled to
NEAR = 0.3  # of object and anchor on one centre, intersection over union; below it an anchor is background


def anchors(survey: Survey) -> Sequence[Finding]:
    """Counts the objects whose best anchor, laid on their centre, shares less than `NEAR`."""
    objects = survey.objects
    chosen = ~objects.ignored
    if not chosen.any():
        return ()
    size = objects.size[chosen]
    scale = np.minimum(SHORT_SIDE / size.min(1), LONG_SIDE / size.max(1))
    sides = (objects.box[chosen, 2:] - objects.box[chosen, :2]) * scale[:, None]
    far = _best(sides) < NEAR
    if not far.any():
        return ()
    roots = np.sqrt(sides[far].prod(1))
    ratios = sides[far].max(1) / np.maximum(sides[far].min(1), 1e-3)
    message = (
        f"{int(far.sum())} of {int(chosen.sum())} objects ({far.mean():.1%}): sides of {roots.min():.3g} to "
        f"{roots.max():.3g} pixels at image_size={SHORT_SIDE}, up to {ratios.max():.3g} times longer than wide"
    )
    return [survey.finding(KIND, message)]


def _best(sides: np.ndarray) -> np.ndarray:
    """The best intersection over union of boxes (n, 2), width and height, with an anchor on the same centre."""
    w, h = np.ascontiguousarray(sides.T)
    area, best = w * h, np.zeros(len(sides))
    for size in SIZES:
        for ratio in RATIOS:
            shared = np.minimum(w, size / ratio**0.5) * np.minimum(h, size * ratio**0.5)
            np.maximum(best, shared / (area + size**2 - shared), out=best)
    return best
