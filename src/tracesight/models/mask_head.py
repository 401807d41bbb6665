"""The mask branch: He et al., "Mask R-CNN" (2017), section 3 and figure 4. Parameter names are torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from tracesight.models.box_heads import conv_block
from tracesight.models.initialise import initialise
from tracesight.ops.precision import full_precision


class MaskHead(nn.Sequential):
    """Four 3×3 convolutions (figure 4, right). norm: after each, as torchvision's v2 has it; None: none."""

    def __init__(self, channels: int, width: int, norm: Callable[[int], nn.Module] | None = None) -> None:
        widths = [channels, width, width, width, width]
        super().__init__(*(conv_block(a, b, norm) for a, b in pairwise(widths)))
        initialise(self, partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"))


class MaskPredictor(nn.Module):
    """A transposed convolution that doubles the side, then a mask logit a class, or one for all (section 3.1)."""

    def __init__(self, channels: int, width: int, masks: int) -> None:
        super().__init__()
        self.conv5_mask = nn.ConvTranspose2d(channels, width, 2, stride=2)
        self.mask_fcn_logits = nn.Conv2d(width, masks, 1)
        initialise(self.conv5_mask, partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"))
        # Small, so that the first loss is log 2: fan-out initialisation with two classes would start at three times it.
        initialise(self.mask_fcn_logits, partial(nn.init.normal_, std=0.001))

    def forward(self, x: Tensor) -> Tensor:
        return full_precision(self.mask_fcn_logits(F.relu(self.conv5_mask(x), inplace=True)))
