"""What an encoder makes of whole pictures: the mean over the cells of its last stage.

D width of that stage.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tracesight.bundle import Bundle
from tracesight.data.dataset import Dataset
from tracesight.data.kept import KeptPictures
from tracesight.data.whole import centre_view, unit
from tracesight.errors import UserError
from tracesight.models.encode import pooled, width_of
from tracesight.models.pixels import standardised
from tracesight.predict.ahead import read_ahead
from tracesight.predict.classes import AT_ONCE
from tracesight.predict.scenes import evaluating, placed

_KEPT = KeptPictures()  # a training looks at the same ones again and again


def dataset_features(
    bundle: Bundle,
    dataset: Dataset,
    *,
    device: str | torch.device | None = None,
    progress: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """(n, D) float32 on the CPU: a row for each picture, seen from the middle as the bundle says.

    Of a classifier the features are those before its last layer. progress: told how many were done.
    Raises UserError: the bundle finds objects, or a picture cannot be read.
    """
    if bundle.task not in ("features", "classify"):
        raise UserError(f"the bundle ({bundle.spec['name']}) finds objects; features are those of a classifier's body")
    place, model = placed(bundle.model, device), bundle.model
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    size, resize, channels = bundle.preprocessing["image_size"], bundle.preprocessing["resize"], bundle.in_channels

    def seen(index: int) -> np.ndarray:
        return unit(centre_view(_KEPT(dataset[index].path, channels), size, resize))

    rows = torch.empty((len(dataset), width_of(model)))
    done = 0
    with evaluating(model), torch.inference_mode():
        for views in read_ahead(seen, range(len(dataset)), AT_ONCE):
            pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)
            rows[done : done + len(views)] = pooled(model, standardised(model, pixels.to(place))).cpu()
            done += len(views)
            if progress is not None:
                progress(len(views))
    return rows
