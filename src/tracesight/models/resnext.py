"""ResNeXt: Xie et al., "Aggregated Residual Transformations for Deep Neural Networks" (2017), section 3.

A block adds up many transformations of the same shape (equation 2). Figure 3c: together they are a bottleneck whose 3×3
convolution has a group for each. Letters, input and all else as in `resnet.py`; the stride is on the 3×3, as in the
paper. Parameter names are torchvision's.
"""

from __future__ import annotations

from functools import partial

from tracesight.models.norms import norm_layer
from tracesight.models.resnet import DEPTHS, Bottleneck, ResNet


def resnext(
    depth: int,
    cardinality: int,
    width: int,
    num_classes: int | None = 1000,
    *,
    norm: str = "batch",
    norm_eps: float = 1e-5,
    in_channels: int = 3,
    zero_init: bool = False,
    drop_path: float = 0.0,
) -> ResNet:
    """ResNeXt-`depth` (`cardinality` × `width`d): so many groups, of so many channels in the first stage (table 1).

    zero_init and drop_path as `resnet` has them.
    """
    return ResNet(
        partial(Bottleneck, groups=cardinality, widen=cardinality * width // 64),
        DEPTHS[depth],
        num_classes,
        norm_layer(norm, norm_eps),
        in_channels=in_channels,
        zero_init=zero_init,
        drop_path=drop_path,
    )
