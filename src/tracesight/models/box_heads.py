"""What is done with a region's features to say what it is, and how its box must move.

R regions, C classes with background, index 0; regions come as (R, channels, P, P). Two layers (FPN, section 4.2),
convolutions and then one layer (Wu and He, "Group Normalization", section 4.2; torchvision's v2 and detectron2's), or
the backbone's last stage (He et al., "Deep Residual Learning", appendix A). Parameter names are torchvision's; the
stage, of which torchvision has no head, keeps its own, `layer4`.

Fully connected layers begin as torch's own, U(±1 / √fan-in). √3 times as large, or at Fast R-CNN's deviations of 0.01
and 0.001 (section 2.3), they were seen to learn boxes more slowly: docs/papers/faster-rcnn.md, "Beside torchvision".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from tracesight.models.initialise import initialise
from tracesight.ops.precision import full_precision


def conv_block(c_in: int, c_out: int, norm: Callable[[int], nn.Module] | None) -> nn.Sequential:
    """A 3×3 convolution, its norm if there is one, and a ReLU."""
    convolution = nn.Conv2d(c_in, c_out, 3, padding=1, bias=norm is None)
    return nn.Sequential(convolution, *([] if norm is None else [norm(c_out)]), nn.ReLU(inplace=True))


class BoxHead(nn.Module):
    """Two fully connected layers (FPN, section 4.2)."""

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.fc6, self.fc7 = nn.Linear(channels * size**2, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)))))


class ConvBoxHead(nn.Sequential):
    """3×3 convolutions of `channels`, so many, then one fully connected layer: "4conv1fc"."""

    def __init__(
        self, channels: int, size: int, width: int, convolutions: int, norm: Callable[[int], nn.Module] | None
    ) -> None:
        blocks = nn.Sequential(*(conv_block(channels, channels, norm) for _ in range(convolutions)))
        initialise(blocks, partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"))
        super().__init__(*blocks, nn.Flatten(), nn.Linear(channels * size**2, width), nn.ReLU(inplace=True))


class StageHead(nn.Module):
    """The last stage of a backbone on each region, then the mean of its cells.

    norm: what ends the stage of a pre-activation network, followed by a ReLU.
    """

    def __init__(self, stage: nn.Sequential, norm: nn.Module | None) -> None:
        super().__init__()
        self.layer4, self.norm = stage, norm

    def features(self, x: Tensor) -> Tensor:
        """(R, channels of the stage, P / 2, P / 2): what a mask head reads too (Mask R-CNN, figure 4, left)."""
        x = self.layer4(x)
        return x if self.norm is None else F.relu(self.norm(x), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).mean(dim=(2, 3))


class BoxPredictor(nn.Module):
    """Class logits (R, C) and class-specific deltas (R, 4C)."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score, self.bbox_pred = nn.Linear(width, num_classes), nn.Linear(width, num_classes * 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return full_precision(self.cls_score(x)), full_precision(self.bbox_pred(x))
