"""What the check takes for the default anchors is what the detectors and the recipe have."""

from __future__ import annotations

import inspect
from itertools import chain

import numpy as np
import pytest
import torch

from tracesight.data.checks import anchors
from tracesight.models.anchors import cell_anchors
from tracesight.models.rcnn import rcnn_fpn
from tracesight.recipes.detect import Config


def test_numbers_are_the_models_own() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(rcnn_fpn).parameters.items()}
    assert tuple(chain.from_iterable(defaults["anchor_sizes"])) == anchors.SIZES
    assert defaults["anchor_ratios"] == anchors.RATIOS
    config = Config()
    assert (config.image_size, config.max_size) == (anchors.SHORT_SIDE, None)
    assert anchors.LONG_SIDE == anchors.SHORT_SIDE * 5 // 3


@pytest.mark.parametrize("sides", [(32.0, 32.0), (40.0, 300.0), (5.0, 5.0), (700.0, 90.0), (181.0, 362.0)])
def test_the_best_anchor_is_that_of_torch(sides: tuple[float, float]) -> None:
    boxes = torch.cat([cell_anchors((size,), anchors.RATIOS) for size in anchors.SIZES])
    width, height = sides
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    shared = widths.clamp(max=width) * heights.clamp(max=height)
    best = (shared / (widths * heights + width * height - shared)).max()
    assert anchors._best(np.array([sides]))[0] == pytest.approx(float(best), abs=0.02)  # those are whole pixels
