"""Regions as pictures of their own: Girshick et al., "Rich feature hierarchies" (2014), section 2.1 and appendix A.

Each region is cut out of the picture, warped to a square whatever its shape, and sent through the whole network: the
slow way that everything after R-CNN avoids. R regions, C channels of the picture, S side of the square, F features.

Deviations: the square is resampled by averaging (RoIAlign on the picture itself, adaptive sampling), where the paper
resizes; the network is a ResNet, its features the mean of the last stage's cells.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import torch
from torch import Tensor, nn

from tracesight.models.resnet import ResNet
from tracesight.ops.pyramid import FeatureTable
from tracesight.ops.roi_align import multilevel_roi_align
from tracesight.ops.trim import may_read

# Crops that go through the network together where no gradient is asked for. Always so many, the last ones filled up:
# the last bits of a convolution hang on how many there are, and what is kept must be what would be computed.
AT_A_TIME = 32
# Features of a frozen network that are kept, in numbers: 256 MB.
MOST_KEPT = 1 << 26


class PictureItself(nn.Module):
    """The backbone of R-CNN: none. One "feature map", the standardised picture, of stride 1. No parameters."""

    strides = (1,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]


class WarpedRegions(nn.Module):
    """Crop, warp, and the network on each crop: (R, F).

    context: pixels of the square on each side that show what lies around the region (appendix A: 16). Beyond the
    picture is its mean, which is 0. Where no parameter of the network learns and counts may be read, the features of
    every crop are kept and not computed again: in a training, those of each picture's proposals, epoch after epoch.
    """

    strides = (1,)

    def __init__(self, body: ResNet, size: int, context: int) -> None:
        super().__init__()
        if not 0 <= 2 * context < size:
            raise ValueError(f"context is {context}: both sides of it leave nothing of a crop of {size}")
        self.body, self.size, self.context = body, size, context
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self._kept_of: tuple = ()

    def forward(self, table: FeatureTable, boxes: Tensor, picture: Tensor) -> Tensor:
        """(R, F) of boxes (R, 4) of pictures (R,), whose pixels are the table's only level."""
        learns = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.body.parameters())
        if learns:
            return self._features(self.warp(table, boxes, picture))
        parts = zip(boxes.split(AT_A_TIME), picture.split(AT_A_TIME))
        return torch.cat([self._known(self.warp(table, *part)) for part in parts])

    def warp(self, table: FeatureTable, boxes: Tensor, picture: Tensor) -> Tensor:
        """Crops (R, C, S, S): the region fills all but `context` pixels on each side."""
        beyond = (boxes[:, 2:] - boxes[:, :2]) * (self.context / (self.size - 2 * self.context))
        around = torch.cat((boxes[:, :2] - beyond, boxes[:, 2:] + beyond), dim=1)
        return multilevel_roi_align(
            table, around, picture, self.strides, output_size=self.size, sampling=0, aligned=True
        )

    def _features(self, crops: Tensor) -> Tensor:
        return self.body.features(crops)[-1].mean(dim=(2, 3))

    def _filled(self, crops: Tensor) -> Tensor:
        """Features of at most `AT_A_TIME` crops, computed as if there were so many."""
        count = crops.shape[0]
        return self._features(torch.nn.functional.pad(crops, (0, 0) * 3 + (0, AT_A_TIME - count)))[:count]

    def _known(self, crops: Tensor) -> Tensor:
        """Features (R, F) of at most `AT_A_TIME` crops, those that were seen before from memory."""
        if (
            not crops.shape[0]
            or not may_read(crops)
            or any(parameter.requires_grad for parameter in self.body.parameters())
        ):
            return self._filled(crops)
        tensors = (tensor for tensor in self.body.state_dict().values() if not tensor.is_inference())
        weights = (torch.is_autocast_enabled("cpu"), *((tensor.data_ptr(), tensor._version) for tensor in tensors))
        if weights != self._kept_of:
            self._kept.clear()
            self._kept_of = weights
        keys = [hashlib.blake2b(crop.numpy().tobytes(), digest_size=16).digest() for crop in crops.contiguous()]
        new = [index for index, key in enumerate(keys) if key not in self._kept]
        if new:
            # What is found while predicting may be trained on later.
            with torch.inference_mode(False), torch.no_grad():
                features = self._filled(crops[new])
            for index, feature in zip(new, features, strict=True):
                self._kept[keys[index]] = feature.clone()
        found = torch.stack([self._kept[key] for key in keys])
        while len(self._kept) * found.shape[1] > MOST_KEPT:
            self._kept.popitem(last=False)
        return found
