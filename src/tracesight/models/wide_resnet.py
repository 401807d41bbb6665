"""Wide residual networks: Zagoruyko and Komodakis, "Wide Residual Networks" (2016), section 2.

Fewer, wider blocks instead of more: the 3×3 convolutions of a ResNet's bottlenecks have `factor` times the channels, as
in the paper's ImageNet network WRN-50-2-bottleneck. Letters, input and all else as in `resnet.py`.
Deviation: norms come after convolutions and the stride is on the 3×3, which is what torchvision's and timm's weights
of these networks expect. Parameter names are torchvision's.
"""

from __future__ import annotations

from functools import partial

from tracesight.models.norms import norm_layer
from tracesight.models.resnet import DEPTHS, Bottleneck, ResNet


def wide_resnet(
    depth: int,
    factor: int,
    num_classes: int | None = 1000,
    *,
    norm: str = "batch",
    norm_eps: float = 1e-5,
    in_channels: int = 3,
    zero_init: bool = False,
    drop_path: float = 0.0,
) -> ResNet:
    """Wide ResNet-`depth`-`factor`. zero_init and drop_path as `resnet` has them."""
    return ResNet(
        partial(Bottleneck, widen=factor),
        DEPTHS[depth],
        num_classes,
        norm_layer(norm, norm_eps),
        in_channels=in_channels,
        zero_init=zero_init,
        drop_path=drop_path,
    )
