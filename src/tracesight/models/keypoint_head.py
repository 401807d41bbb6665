"""Keypoints of an object: He et al., "Mask R-CNN" (2017), section 5.

R regions, K points of an object. Every point has a heatmap of 56 × 56 cells of which one is the point: a softmax over
the cells. The heatmaps are the same for all classes. Parameter names are torchvision's.

As in torchvision, and in Detectron before it, the convolutions have 512 channels and the 28 × 28 cells of the
transposed convolution are doubled by interpolation. The transposed convolution starts small, as in Detectron, so that
the first loss is log 56²; torchvision's fan-out initialisation starts higher.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from tracesight.models.initialise import initialise
from tracesight.ops.precision import full_precision

CONVOLUTIONS = 8


def keypoints_of(model: nn.Module) -> int:
    """How many points of an object a network finds; 0 for one without a keypoint head."""
    predictor = getattr(getattr(model, "roi_heads", None), "keypoint_predictor", None)
    return 0 if predictor is None else predictor.kps_score_lowres.out_channels


class KeypointHead(nn.Sequential):
    """Eight 3×3 convolutions."""

    def __init__(self, channels: int, width: int) -> None:
        layers: list[nn.Module] = []
        for a, b in pairwise([channels] + [width] * CONVOLUTIONS):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(inplace=True)]
        super().__init__(*layers)
        initialise(self, partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"))


class KeypointPredictor(nn.Module):
    """Heatmaps (R, K, 56, 56) of features (R, width, 14, 14)."""

    def __init__(self, width: int, num_keypoints: int) -> None:
        super().__init__()
        self.kps_score_lowres = nn.ConvTranspose2d(width, num_keypoints, 4, stride=2, padding=1)
        initialise(self, partial(nn.init.normal_, std=0.001))

    def forward(self, x: Tensor) -> Tensor:
        logits = full_precision(self.kps_score_lowres(x))
        return F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
