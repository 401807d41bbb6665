"""Pre-activation residual networks: He et al., "Identity Mappings in Deep Residual Networks" (2016).

Nothing but additions lies on the way from one unit to the next: norm and ReLU come before the convolutions (figure 1b,
figure 4e). Letters and input as in `resnet.py`. A stage ends with a norm and ReLU, so that the first unit of the next
one, whose shape changes, reads the same activated input on both ways; after the stem and after the last unit they are
those of the appendix. Deviation: the paper says so of the first and the last unit only; at the other changes of shape
it is as the authors' released code has it. Projections have no norm, as there.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from tracesight.models.norms import norm_layer
from tracesight.models.resnet import DEPTHS, Norm, ResNet, conv, joined, shortcut_of

PREACT_DEPTHS = {**DEPTHS, 200: (3, 24, 36, 3)}


class PreActBasic(nn.Module):
    """Norm, ReLU, 3×3, twice, and a shortcut. Without bn1 it reads what is activated already."""

    def __init__(self, c_in: int, width: int, stride: int, norm: Norm, *, shortcut: str = "B") -> None:
        super().__init__()
        self.channels = width
        self.bn1: nn.Module | None = norm(c_in)
        self.conv1 = conv(c_in, width, 3, stride)
        self.bn2, self.conv2 = norm(width), conv(width, width, 3)
        self.downsample = shortcut_of(shortcut, c_in, width, stride, None)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        out = x if self.bn1 is None else F.relu(self.bn1(x), inplace=True)
        out = F.relu(self.bn2(self.conv1(out)), inplace=True)
        return joined(self.conv2(out), x, self.downsample, keep)


class PreActBottleneck(nn.Module):
    """Norm, ReLU, convolution: 1×1 down, 3×3, 1×1 up, and a shortcut.

    stride_first: the stride is on the first 1×1, as in the authors' CIFAR networks, not on the 3×3. bn1 as above.
    """

    def __init__(
        self, c_in: int, width: int, stride: int, norm: Norm, *, shortcut: str = "B", stride_first: bool = False
    ) -> None:
        super().__init__()
        self.channels = 4 * width
        first, second = (stride, 1) if stride_first else (1, stride)
        self.bn1: nn.Module | None = norm(c_in)
        self.conv1 = conv(c_in, width, 1, first)
        self.bn2, self.conv2 = norm(width), conv(width, width, 3, second)
        self.bn3, self.conv3 = norm(width), conv(width, self.channels, 1)
        self.downsample = shortcut_of(shortcut, c_in, self.channels, stride, None)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        out = x if self.bn1 is None else F.relu(self.bn1(x), inplace=True)
        out = F.relu(self.bn2(self.conv1(out)), inplace=True)
        out = F.relu(self.bn3(self.conv2(out)), inplace=True)
        return joined(self.conv3(out), x, self.downsample, keep)


class PreActResNet(ResNet):
    """A `ResNet` of pre-activation units; `norms[i]` and a ReLU end stage i."""

    def __init__(self, block, depths, num_classes: int | None, norm: Norm, **args) -> None:
        super().__init__(block, depths, num_classes, norm, **args)
        for stage in self.stages:
            stage[0].bn1 = None  # type: ignore[assignment]  # what it reads has been activated
        self.norms = nn.ModuleList(norm(channels) for channels in self.channels)

    def features(self, x: Tensor, keys: Tensor | None = None) -> list[Tensor]:
        """Outputs of the stages as the next one reads them, after norm and ReLU; else as `ResNet.features`."""
        x, keep = self.stem(x), self.scales(keys)
        stages = []
        for stage, norm in zip(self.stages, self.norms):
            for block in stage:
                x = block(x, next(keep))
            x = F.relu(norm(x), inplace=True)
            stages.append(x)
        return stages

    def cut_last(self) -> tuple[nn.Sequential, nn.Module | None]:
        stage, _ = super().cut_last()
        norm = self.norms[-1]
        self.norms = self.norms[:-1]
        return stage, norm


def preact_resnet(
    depth: int,
    num_classes: int | None = 1000,
    *,
    norm: str = "batch",
    norm_eps: float = 1e-5,
    in_channels: int = 3,
    shortcut: str = "B",
    drop_path: float = 0.0,
) -> PreActResNet:
    """Pre-activation ResNet of 18, 34, 50, 101, 152 or 200 layers, for pictures of ImageNet's size.

    shortcut and drop_path as `resnet` has them. There is no zero_init: no norm ends a unit.
    """
    return PreActResNet(
        partial(PreActBasic if depth < 50 else PreActBottleneck, shortcut=shortcut),
        PREACT_DEPTHS[depth],
        num_classes,
        norm_layer(norm, norm_eps),
        in_channels=in_channels,
        drop_path=drop_path,
    )
