"""What recipes that learn from views share: one part of a batch through a method."""

from __future__ import annotations

from torch import nn

from tracesight.data.batch import Loaded
from tracesight.data.view_batch import finished
from tracesight.models.encode import Made
from tracesight.models.pixels import standardised


def made_of(network: nn.Module, model: nn.Module, loaded: Loaded) -> Made:
    """What `network`, `model` or a wrapper around it, makes of both views; `model` knows their mean and deviation."""
    batch, views = finished(loaded.batch, loaded.targets)
    return network(*(standardised(model, images) for images in (batch.images, views.second)), batch.keys)
