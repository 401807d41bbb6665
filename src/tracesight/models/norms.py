"""Normalisation layers by the name that recipes and builders use.

N pictures, C channels, H and W cells: layers take (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.ops import FrozenBatchNorm2d

from tracesight.ops.collectives import ranks
from tracesight.ops.precision import full_precision

NORMS = ("frozen", "batch", "group")
# All of (N, C, H, W) but the channels.
_CELLS = (0, 2, 3)


def norm_layer(name: str, eps: float = 1e-5) -> Callable[[int], nn.Module]:
    """A function from channels to a layer: "frozen" batch norm (statistics and scale fixed), "batch", or "group".

    "batch" is `BatchNorm2d`, over all ranks that train together. Groups have at least 4 channels and there are at most
    32 of them (Wu and He, "Group Normalization", 2018). Raises ValueError for another name.
    """
    if name == "frozen":
        return partial(FrozenBatchNorm2d, eps=eps)
    if name == "batch":
        return partial(BatchNorm2d, eps=eps)
    if name == "group":
        return lambda channels: nn.GroupNorm(max(1, min(32, channels // 4)), channels, eps=max(eps, 1e-5))
    raise ValueError(f"norm is {name!r}; it can be " + ", ".join(map(repr, NORMS)))


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics in training are those of all ranks' pictures, on any device.

    Ioffe and Szegedy, "Batch Normalization" (2015), algorithm 1; over ranks as Peng et al., "MegDet" (2018), "Cross-GPU
    Batch Normalization". Ranks may hold different numbers of cells. It is torch's layer in evaluation mode and where
    there is one rank; torch's own over ranks, `nn.SyncBatchNorm`, refuses tensors on the CPU. Parameters and buffers
    have torch's names.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) as `input`. Raises ValueError in training if all ranks together hold one cell a channel."""
        if not self.training or ranks() == 1:
            return super().forward(input)
        return self._over_ranks(input)

    # A compiler cannot look into what waits for other processes: its graph ends here.
    @torch.compiler.disable()
    def _over_ranks(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        mean, squares, count = _statistics(full_precision(input.detach()))
        # Reading the count would make a GPU wait: it can be too small only where every rank has one cell at most.
        if input.numel() <= self.num_features and count <= 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {input.shape} on every rank"
            )
        self._track(mean, squares / (count - 1))
        inverse = torch.rsqrt(squares / count + self.eps)
        return _Normalise.apply(input, self.weight, self.bias, mean, inverse, count)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        # Without momentum torch takes the average of all steps.
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, value in ((self.running_mean, mean), (self.running_var, variance)):
            running.mul_(1 - share).add_(value.to(running.dtype), alpha=share)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), sum of squared deviations from it (C,) and cells a channel, over all ranks' x (N, C, H, W).

    Each rank's deviations are from its own mean, and merged: Chan et al., "Updating Formulae and a Pairwise Algorithm
    for Computing Sample Variances" (1979), section 2. Sums of squares would lose what is small beside the mean.
    """
    channels, cells = x.shape[1], x.numel() // x.shape[1]
    own = x.new_zeros(2 * channels + 1)
    if cells:
        variance, mean = torch.var_mean(x, _CELLS, correction=0)
        own = torch.cat((mean, variance * cells, x.new_full((1,), cells)))
    every = own.new_empty(ranks() * len(own))
    dist.all_gather_into_tensor(every, own)
    means, squares, counts = every.view(-1, len(own)).split((channels, channels, 1), dim=1)
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    return mean, (squares + counts * (means - mean).square()).sum(0), count


class _Normalise(torch.autograd.Function):
    """(x - mean) × inverse × weight + bias, where mean and inverse (C,) are statistics of all ranks' x.

    x of one rank moves the statistics that all normalise by: its gradient needs the sums of all ranks' gradients (Ioffe
    and Szegedy, section 3). Those of weight and bias are of this rank's pictures, as those of every parameter.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, count: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, mean, inverse, count)
        weight, bias = full_precision(weight), full_precision(bias)
        centred = full_precision(x) - _channels(mean)
        return torch.addcmul(_channels(bias), centred, _channels(weight * inverse)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        grad = full_precision(grads[0])
        normal = (full_precision(x) - _channels(mean)) * _channels(inverse)
        sums = torch.stack((grad.sum(_CELLS), (grad * normal).sum(_CELLS)))
        of_bias, of_weight = sums.to(weight.dtype)
        if not ctx.needs_input_grad[0]:
            return None, of_weight, of_bias, None, None, None
        shared = sums.clone()
        dist.all_reduce(shared)
        of_mean, of_deviation = shared / count
        of_x = grad - _channels(of_mean) - normal * _channels(of_deviation)
        of_x = of_x * _channels(full_precision(weight) * inverse)
        return of_x.to(x.dtype), of_weight, of_bias, None, None, None


def _channels(values: Tensor) -> Tensor:
    """(C,) as (C, 1, 1)."""
    return values[:, None, None]
