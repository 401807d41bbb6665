"""Residual networks for pictures of CIFAR's size: He et al., "Deep Residual Learning" (2016), section 4.2, and
"Identity Mappings in Deep Residual Networks" (2016), section 4.

A 3×3 convolution, three stages of n blocks at strides 1, 2 and 4 with widths 16, 32 and 64, average pooling, a linear
classifier: 6n + 2 layers, or 9n + 2 of bottlenecks. Letters and input as in `resnet.py`. Shortcuts are option A, the
paper's on CIFAR, but those of the bottlenecks project (B), as in the authors' released code.
"""

from __future__ import annotations

from functools import partial

from tracesight.models.norms import norm_layer
from tracesight.models.preact_resnet import PreActBasic, PreActBottleneck, PreActResNet
from tracesight.models.resnet import DEPTHS, BasicBlock, PlainBlock, ResNet

WIDTH = 16


def cifar_resnet(
    depth: int,
    num_classes: int | None = 10,
    *,
    norm: str = "batch",
    norm_eps: float = 1e-5,
    in_channels: int = 3,
    shortcut: str = "A",
    zero_init: bool = False,
    drop_path: float = 0.0,
) -> ResNet:
    """ResNet of 6n + 2 layers (20, 32, 44, 56, 110, 1202). Arguments as `resnet` has them."""
    return ResNet(
        partial(BasicBlock, shortcut=shortcut),
        ((depth - 2) // 6,) * 3,
        num_classes,
        norm_layer(norm, norm_eps),
        in_channels=in_channels,
        width=WIDTH,
        small=True,
        zero_init=zero_init,
        drop_path=drop_path,
    )


def cifar_plain(
    depth: int, num_classes: int | None = 10, *, norm: str = "batch", norm_eps: float = 1e-5, in_channels: int = 3
) -> ResNet:
    """The plain network of 6n + 2 layers: the same without shortcuts."""
    blocks = ((depth - 2) // 6,) * 3
    make = norm_layer(norm, norm_eps)
    return ResNet(PlainBlock, blocks, num_classes, make, in_channels=in_channels, width=WIDTH, small=True)


def cifar_preact_resnet(
    depth: int,
    num_classes: int | None = 10,
    *,
    norm: str = "batch",
    norm_eps: float = 1e-5,
    in_channels: int = 3,
    shortcut: str = "A",
    drop_path: float = 0.0,
) -> PreActResNet:
    """Pre-activation ResNet of 6n + 2 layers (110)."""
    return PreActResNet(
        partial(PreActBasic, shortcut=shortcut),
        ((depth - 2) // 6,) * 3,
        num_classes,
        norm_layer(norm, norm_eps),
        in_channels=in_channels,
        width=WIDTH,
        small=True,
        drop_path=drop_path,
    )


def cifar_preact_bottleneck(
    depth: int,
    num_classes: int | None = 10,
    *,
    norm: str = "batch",
    norm_eps: float = 1e-5,
    in_channels: int = 3,
    shortcut: str = "B",
    drop_path: float = 0.0,
) -> PreActResNet:
    """Pre-activation ResNet of bottlenecks and 9n + 2 layers (164)."""
    return PreActResNet(
        partial(PreActBottleneck, shortcut=shortcut, stride_first=True),
        ((depth - 2) // 9,) * 3,
        num_classes,
        norm_layer(norm, norm_eps),
        in_channels=in_channels,
        width=WIDTH,
        small=True,
        drop_path=drop_path,
    )


def cifar_resnet18(
    num_classes: int | None = 10,
    *,
    norm: str = "batch",
    norm_eps: float = 1e-5,
    in_channels: int = 3,
    zero_init: bool = False,
    drop_path: float = 0.0,
) -> ResNet:
    """ImageNet's ResNet-18 behind the stem for small pictures: four stages at strides 1 to 8, widths 64 to 512.

    It is in neither paper: self-supervised learning on CIFAR is usually measured with it.
    """
    return ResNet(
        BasicBlock,
        DEPTHS[18],
        num_classes,
        norm_layer(norm, norm_eps),
        in_channels=in_channels,
        small=True,
        zero_init=zero_init,
        drop_path=drop_path,
    )
