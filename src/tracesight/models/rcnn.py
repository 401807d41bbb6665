"""The composition that the R-CNN family is: a backbone, proposals, and heads over regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tracesight.data.batch import Batch, Targets
from tracesight.models.conventions import CONVENTIONS
from tracesight.models.detections import Detections
from tracesight.models.fpn import PyramidBackbone
from tracesight.models.pixels import IMAGENET_MEAN, IMAGENET_STD, pixel_statistics, remember_pixels, standardised
from tracesight.models.resnet import ResNet
from tracesight.models.roi_heads import (
    BoxHead,
    BoxPredictor,
    MaskHead,
    MaskPredictor,
    RegionAlign,
    RegionSettings,
    RoIHeads,
)
from tracesight.models.rpn import ProposalSettings, RegionProposalNetwork
from tracesight.ops.pyramid import feature_table


class RCNN(nn.Module):
    """`model(batch, targets)` gives a dict of losses, `model(batch)` Detections, in training mode and out of it."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        rpn: nn.Module,
        roi_heads: RoIHeads,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = backbone, rpn, roi_heads
        remember_pixels(self, pixel_mean, pixel_std)

    def standardise(self, batch: Batch) -> Tensor:
        """Pictures (N, C, H, W) with mean 0 and deviation 1 over the data, and 0 where there is only padding."""
        height, width = batch.images.shape[-2:]
        rows = torch.arange(height, device=batch.images.device)[None, :] < batch.sizes[:, :1]
        columns = torch.arange(width, device=batch.images.device)[None, :] < batch.sizes[:, 1:]
        real = (rows[:, None, :, None] & columns[:, None, None, :]).to(batch.images.dtype)
        return standardised(self, batch.images) * real

    def forward(
        self,
        batch: Batch,
        targets: Targets | None = None,
        *,
        max_objects: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, Tensor] | Detections:
        """Losses by name (scalars, float32) with targets; without, detections.

        max_objects and score_threshold replace the model's own settings for this call.
        """
        features = self.backbone(self.standardise(batch))
        proposals, valid, losses = self.rpn(features, batch, targets)
        # One table for all heads. What the last levels add to it (P6) is for the RPN alone.
        table = feature_table(features[: self.roi_heads.levels])
        if targets is None:
            return self.roi_heads.detect(
                table,
                proposals,
                valid,
                batch.sizes,
                max_objects=max_objects,
                score_threshold=score_threshold,
            )
        sampled = self.roi_heads.sample(proposals, valid, batch, targets)
        return {**losses, **self.roi_heads.losses(table, sampled, batch, targets)}


def rcnn_fpn(
    body: Callable[..., ResNet],
    masks: bool,
    num_classes: int,
    conventions: str = "tracesight",
    *,
    in_channels: int = 3,
    pixels: Mapping[str, Sequence[float]] | None = None,
    norm: str = "frozen",
    fpn_channels: int = 256,
    box_channels: int = 1024,
    mask_channels: int = 256,
    anchor_sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,)),
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
    rpn: dict | None = None,
    roi: dict | None = None,
) -> RCNN:
    """Faster R-CNN, or Mask R-CNN with `masks`, on a backbone with a feature pyramid: the whole architecture.

    body: a builder of the catalogue whose stages have strides 4 to 32, such as `resnet`. num_classes counts background.
    in_channels: of a picture. pixels: {"mean": […], "std": […]} of each channel in 0–1; None for those of ImageNet, or
    0.5 and 0.25 where in_channels is not 3. norm is the backbone's ("frozen", "batch" or "group"). fpn_channels,
    box_channels and mask_channels are the widths of the pyramid, the box head and the mask head. anchor_sizes: square
    roots of anchors' areas in pixels, a tuple for each of P2 to P6; anchor_ratios: height over width. rpn and roi
    replace fields of `ProposalSettings` and `RegionSettings` (max_objects, score_threshold and others).
    """
    rules = CONVENTIONS[conventions]
    mean, std = pixel_statistics(in_channels, pixels)
    features = body(None, norm=norm, norm_eps=rules.norm_eps, in_channels=in_channels)
    backbone = PyramidBackbone(features, fpn_channels)
    # P6 is for the RPN alone (FPN, section 4.1).
    pooled = backbone.strides[:4]
    mask_parts = {}
    if masks:
        mask_parts = {
            "mask_roi_pool": RegionAlign(14, pooled, rules.roi_sampling, rules.roi_aligned),
            "mask_head": MaskHead(fpn_channels, mask_channels),
            "mask_predictor": MaskPredictor(mask_channels, mask_channels, num_classes),
            "mask_target_aligned": rules.mask_target_aligned,
        }
    sizes = tuple(tuple(level) for level in anchor_sizes)
    return RCNN(
        backbone,
        RegionProposalNetwork(
            fpn_channels, sizes, tuple(anchor_ratios), len(backbone.strides), ProposalSettings(**(rpn or {}))
        ),
        RoIHeads(
            RegionAlign(7, pooled, rules.roi_sampling, rules.roi_aligned),
            BoxHead(fpn_channels, 7, box_channels),
            BoxPredictor(box_channels, num_classes),
            RegionSettings(**(roi or {})),
            **mask_parts,
        ),
        mean,
        std,
    )
