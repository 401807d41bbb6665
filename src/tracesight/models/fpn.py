"""Lin et al., "Feature Pyramid Networks for Object Detection" (2017), section 3.

In: stages C2 to C5 of a backbone, (N, Ci, H / 2^i, W / 2^i). Out: P2 to P5, all of one width, and P6, which only the
RPN reads (section 4.1, footnote). P6 is every second cell of P5, or a convolution of it (Lin et al., "Focal Loss for
Dense Object Detection", 2017, section 4; there of C5). Parameter names are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracesight.models.initialise import initialise
from tracesight.models.resnet import ResNet


class FeaturePyramid(nn.Module):
    """Lateral 1×1 convolutions, a top-down path by nearest-neighbour doubling, 3×3 convolutions against aliasing."""

    def __init__(
        self,
        channels_in: list[int],
        channels: int,
        norm: Callable[[int], nn.Module] | None = None,
        p6: str = "pool",
    ) -> None:
        super().__init__()
        if p6 not in ("pool", "conv"):
            raise ValueError(f"p6 is {p6!r}; it can be 'pool' or 'conv'")

        def block(c_in: int, size: int) -> nn.Sequential:
            convolution = nn.Conv2d(c_in, channels, size, padding=size // 2, bias=norm is None)
            return nn.Sequential(convolution, *([] if norm is None else [norm(channels)]))

        self.inner_blocks = nn.ModuleList(block(c, 1) for c in channels_in)
        self.layer_blocks = nn.ModuleList(block(channels, 3) for _ in channels_in)
        self.extra_blocks = None
        if p6 == "conv":
            self.extra_blocks = nn.ModuleDict({"p6": nn.Conv2d(channels, channels, 3, 2, 1)})
        initialise(self, partial(nn.init.kaiming_uniform_, a=1))

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        top = self.inner_blocks[-1](stages[-1])
        pyramid = [self.layer_blocks[-1](top)]
        for level in range(len(stages) - 2, -1, -1):
            lateral = self.inner_blocks[level](stages[level])
            top = lateral + F.interpolate(top, size=lateral.shape[-2:], mode="nearest")
            pyramid.insert(0, self.layer_blocks[level](top))
        last = pyramid[-1]
        return [*pyramid, _every_second(last) if self.extra_blocks is None else self.extra_blocks["p6"](last)]


def _every_second(x: Tensor) -> Tensor:
    """P6 of P5: every second cell, not an average.

    By indices: of a pooling, or a slice with steps, torch before 2.15 notes in an export whether the sides were odd.
    """
    rows, columns = (torch.arange(0, side, 2, device=x.device) for side in x.shape[2:])
    return x.index_select(2, rows).index_select(3, columns).contiguous(memory_format=torch.channels_last)


class PyramidBackbone(nn.Module):
    """A backbone's four stages through a pyramid: pictures (N, C, H, W) in, P2 to P6 out."""

    strides = (4, 8, 16, 32, 64)

    def __init__(
        self, body: ResNet, channels: int, norm: Callable[[int], nn.Module] | None = None, p6: str = "pool"
    ) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramid(body.channels, channels, norm, p6)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.fpn(self.body.features(images))
