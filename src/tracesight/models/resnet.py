"""Residual networks: He et al., "Deep Residual Learning for Image Recognition" (2016), sections 3.3, 3.4 and 4.1.

N pictures, C channels, H and W pixels. Input (N, in_channels, H, W), RGB unless told otherwise, already standardised;
stage i has stride 2^i.
Deviation (v1.5): bottlenecks put their stride on the 3×3 convolution and not on the first 1×1, which is half a point
more accurate on ImageNet and what torchvision's weights expect. Parameter names are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracesight.models.norms import norm_layer

# Blocks a stage (table 1).
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

Norm = Callable[[int], nn.Module]


def _conv(c_in: int, c_out: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (figure 5, left)."""

    expansion = 1

    def __init__(self, c_in: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(c_in, width, 3, stride), norm(width)
        self.conv2, self.bn2 = _conv(width, width, 3), norm(width)
        self.downsample = _projection(c_in, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)), inplace=True)


class Bottleneck(nn.Module):
    """1×1 down, 3×3, 1×1 up, and a shortcut (figure 5, right)."""

    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        c_out = width * self.expansion
        self.conv1, self.bn1 = _conv(c_in, width, 1), norm(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), norm(width)
        self.conv3, self.bn3 = _conv(width, c_out, 1), norm(c_out)
        self.downsample = _projection(c_in, c_out, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)), inplace=True)


def _projection(c_in: int, c_out: int, stride: int, norm: Norm) -> nn.Sequential | None:
    """Shortcut B: a projection where the shape changes, the identity elsewhere (section 3.3)."""
    if stride == 1 and c_in == c_out:
        return None
    return nn.Sequential(_conv(c_in, c_out, 1, stride), norm(c_out))


class ResNet(nn.Module):
    """Stem, four stages, and a linear classifier unless `num_classes` is None.

    `model(x)` gives logits (N, num_classes), `model.features(x)` the four stages' outputs, strides 4 to 32.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, depth: int, num_classes: int | None, norm: Norm, in_channels: int = 3) -> None:
        super().__init__()
        block = BasicBlock if depth < 50 else Bottleneck
        self.conv1, self.bn1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False), norm(64)
        c_in = 64
        self.channels: list[int] = []
        for stage, blocks in enumerate(DEPTHS[depth]):
            width, stride = 64 * 2**stage, 1 if stage == 0 else 2
            layers = [block(c_in, width, stride, norm)]
            c_in = width * block.expansion
            layers += [block(c_in, width, 1, norm) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
            self.channels.append(c_in)
        self.fc = None if num_classes is None else nn.Linear(c_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He et al., "Delving Deep into Rectifiers" (2015), equation 14.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> list[Tensor]:
        """Outputs of the four stages: (N, channels[i], H / 2^(i+2), W / 2^(i+2))."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        stages = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            stages.append(x)
        return stages

    def forward(self, x: Tensor) -> Tensor:
        if self.fc is None:
            raise RuntimeError("this ResNet was built without a classifier: use features(x)")
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.features(x)[-1], 1), 1))


def resnet(
    depth: int, num_classes: int | None = 1000, *, in_channels: int = 3, norm: str = "batch", norm_eps: float = 1e-5
) -> ResNet:
    """ResNet of `depth` 18, 34, 50, 101 or 152 layers (table 1) for pictures of `in_channels` channels."""
    return ResNet(depth, num_classes, norm_layer(norm, norm_eps), in_channels)
