"""What recipes that learn from views share: one part of a batch through a method; what was learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from tracesight.data.batch import Loaded
from tracesight.data.view_batch import finished
from tracesight.errors import UserError
from tracesight.models.build import build
from tracesight.models.encode import Made, gathered_rows
from tracesight.models.mae import MAE
from tracesight.models.pixels import remember_pixels, standardised
from tracesight.training import collapse


def made_of(network: nn.Module, model: nn.Module, loaded: Loaded) -> Made:
    """What `network`, `model` or a wrapper around it, makes of the views; `model` knows their mean and deviation."""
    batch, rest = finished(loaded.batch, loaded.targets)
    views = [batch.images] if rest.second is None else [batch.images, rest.second]
    return network(*(standardised(model, images) for images in views), batch.keys)


def encoder_of(method: Any) -> nn.Module:
    """A copy of the encoder that `method` (`models.methods.build_method`) is teaching, as it stands, without head."""
    spec = method.spec["encoder"]
    with torch.random.fork_rng(devices=[]):
        encoder = build(spec["name"], 0, spec["conventions"], **spec["args"])
    encoder.load_state_dict(method.pretrained())
    return _beside(encoder, method)


def whole_of(method: MAE) -> nn.Module:
    """A copy of a masked autoencoder with its decoder, as the network of the catalogue that it is."""
    spec: Any = method.spec
    encoder = spec["encoder"]
    sizes = {key: value for key, value in encoder["args"].items() if key in ("image_size", "in_channels", "heads")}
    with torch.random.fork_rng(devices=[]):
        whole = build(f"mae_{encoder['name']}", 0, encoder["conventions"], **sizes, **spec["args"])
    whole.load_state_dict(method.state_dict())
    return _beside(whole, method)


def _beside(network: nn.Module, method: Any) -> nn.Module:
    """`network` on the device of `method`, taking pictures standardised as it does."""
    remember_pixels(network, method.pixel_mean.flatten().tolist(), method.pixel_std.flatten().tolist())
    return network.to(next(method.parameters()).device).eval()


class Fits(Protocol):
    """The keys of a recipe that must fit the method."""

    @property
    def method(self) -> str: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def accumulate(self) -> int: ...


def check_fit(config: Fits, method: Any, sides: tuple[int, int], pictures: int, ranks: int) -> None:
    """Raise UserError where batch, queue, groups of batch norm, pictures and sides of views do not fit each other."""
    batch = config.batch_size
    if pictures < batch:
        raise UserError(
            f"{pictures} pictures are fewer than batch_size={batch}: add pictures, or use a smaller batch_size"
        )
    if config.accumulate > 1 and not method.accumulates:
        raise UserError(
            f"accumulate={config.accumulate}: {config.method} tells the pictures of a batch from each other, and parts "
            "of it would be another loss; use accumulate=1 with more processes or a smaller batch_size"
        )
    if isinstance(method, MAE):
        if any(side % method.patch for side in sides):
            raise UserError(f"image_size={list(sides)}: sides must be multiples of the patch's {method.patch} pixels")
        return
    if not hasattr(method, "queue"):
        return
    waiting, new = method.queue.shape[1], _new_keys(method, batch)
    if waiting % new:
        fits = max(1, waiting // new) * new
        raise UserError(f"queue={waiting} is no multiple of the {new} keys of a batch: use queue={fits}")
    if waiting > pictures:
        raise UserError(
            f"queue={waiting} is more than the {pictures} pictures, which would wait in it several times: use "
            f"queue={max(new, pictures // new * new)}"
        )
    share, group = batch // ranks // config.accumulate, method.bn_group
    if batch % (ranks * config.accumulate) == 0 and share % group:
        raise UserError(
            f"bn_group={group} does not divide the {share} pictures that a process takes at a time: use "
            f"bn_group={max(g for g in range(1, share + 1) if share % g == 0 and g <= max(group, 2))}"
        )
    if group == share * ranks:
        raise UserError(
            f"bn_group={group} is all pictures that are seen at a time, and keys would share statistics with their "
            f"queries: use bn_group={max(2, group // 2)}"
        )


def filling(method: Any, batch: int, total: int) -> str | None:
    """One line where the method has a queue that takes long to fill in a run of `total` steps; else None."""
    if not hasattr(method, "queue"):
        return None
    return collapse.slow_to_fill(method.queue.shape[1], _new_keys(method, batch), total)


def _new_keys(method: Any, batch: int) -> int:
    return batch * (2 if method.symmetric else 1)


def spread_of(parts: Sequence[Made]) -> tuple[torch.Tensor, torch.Tensor]:
    """Deviation and effective rank of the queries of a batch, over all ranks."""
    queries = gathered_rows(torch.cat([made.queries for made in parts if made.queries is not None]))
    return collapse.deviation(queries), collapse.rank(queries)
