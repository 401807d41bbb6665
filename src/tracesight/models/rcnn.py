"""The R-CNN family: one composition of a backbone, proposals, and heads over regions, and a builder for each system.

| system | backbone gives | proposals | region features | heads |
|---|---|---|---|---|
| R-CNN, `rcnn` | the picture itself | given | crop, warp, and the whole network on each | class, box |
| Fast R-CNN, `rcnn_c4` "fast" | res4 of the picture | given | RoIPool, then res5 | class, box |
| Faster R-CNN, `rcnn_c4` "faster" | res4 | RPN on it | RoIAlign or RoIPool, then res5 | class, box |
| the same, `rcnn_dc5` | res5, dilated | RPN on it | RoIAlign or RoIPool | class, box |
| the same, `rcnn_fpn` | P2 to P6 | RPN on each level | RoIAlign on the level of its size | class, box |
| Mask R-CNN, `rcnn_c4` or `rcnn_fpn` "mask" | as Faster | as Faster | as Faster, RoIAlign | class, box, mask |

Of each "faster" system there is the first stage alone ("rpn") and the second one alone ("fast").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tracesight.data.batch import Batch, Targets
from tracesight.models.box_heads import BoxHead, BoxPredictor, ConvBoxHead, StageHead
from tracesight.models.conventions import CONVENTIONS, Conventions
from tracesight.models.detections import Detections
from tracesight.models.fpn import PyramidBackbone
from tracesight.models.keypoint_head import KeypointHead, KeypointPredictor
from tracesight.models.mask_head import MaskHead, MaskPredictor
from tracesight.models.norms import norm_layer
from tracesight.models.pixels import IMAGENET_MEAN, IMAGENET_STD, pixel_statistics, remember_pixels, standardised
from tracesight.models.proposals import GivenProposals, Proposals, ProposalsAlone
from tracesight.models.resnet import ResNet
from tracesight.models.roi_heads import RegionAlign, RegionPool, RegionSettings, RoIHeads
from tracesight.models.rpn import ProposalSettings, RegionProposalNetwork
from tracesight.models.warped import PictureItself, WarpedRegions
from tracesight.ops.pyramid import FeatureTable, feature_table


class RCNN(nn.Module):
    """`model(batch, targets)` gives a dict of losses, `model(batch)` Detections, in training mode and out of it."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        rpn: nn.Module,
        roi_heads: RoIHeads | ProposalsAlone,
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
        nms: str | None = None,
    ) -> dict[str, Tensor] | Detections:
        """Losses by name (scalars, float32) with targets; without, detections.

        max_objects, score_threshold and nms replace the model's own settings for this call.
        """
        table, proposals, losses = self.regions(batch, targets)
        if targets is None:
            return self.roi_heads.detect(
                table, proposals, batch.sizes, max_objects=max_objects, score_threshold=score_threshold, nms=nms
            )
        sampled = self.roi_heads.sample(proposals, batch, targets)
        return {**losses, **self.roi_heads.losses(table, sampled, batch, targets)}

    def regions(
        self, batch: Batch, targets: Targets | None = None
    ) -> tuple[FeatureTable, Proposals, dict[str, Tensor]]:
        """What the second stage starts from: features as one table for all heads, proposals, and the first's losses."""
        features = self.backbone(self.standardise(batch))
        proposals, losses = self.rpn(features, batch, targets)
        # What the last levels add to the table (P6) is for the RPN alone.
        return feature_table(features[: self.roi_heads.levels]), proposals, losses


Sizes = tuple[tuple[float, ...], ...]
# Square roots of anchors' areas in pixels (Faster R-CNN with FPN's smallest), and heights over widths.
EVERY_SIZE: Sizes = ((32, 64, 128, 256, 512),)
RATIOS = (0.5, 1.0, 2.0)
# Of one level there are more candidates than of each of five, as in detectron2's C4 and DC5.
ONE_LEVEL = {"pre_nms_train": 12000, "pre_nms_test": 6000}
# Fast R-CNN, section 2.3: 128 regions of two pictures; R-CNN, section 2.2: NMS, whose threshold its code has as 0.3.
GIVEN, WARPED = {"batch": 64}, {"batch": 64, "nms_iou": 0.3}


def rcnn(
    body: Callable[..., ResNet],
    num_classes: int,
    conventions: str = "tracesight",
    *,
    in_channels: int = 3,
    pixels: Mapping[str, Sequence[float]] | None = None,
    norm: str = "frozen",
    crop_size: int = 224,
    crop_context: int = 16,
    roi: dict | None = None,
) -> RCNN:
    """R-CNN (2014) on given proposals: crop and warp to `crop_size` pixels, `crop_context` of them on each side around
    the region, the whole of `body` on each crop, class scores by softmax and class-specific deltas.

    Other arguments as in `rcnn_fpn`. Softmax scores instead of SVMs, and all trained at once: see docs/papers/rcnn.md.
    """
    rules = CONVENTIONS[conventions]
    network = body(None, norm=norm, norm_eps=rules.norm_eps, in_channels=in_channels)
    return RCNN(
        PictureItself(),
        GivenProposals(),
        RoIHeads(
            WarpedRegions(network, crop_size, crop_context),
            nn.Flatten(),
            BoxPredictor(network.channels[-1], num_classes),
            RegionSettings(**{**WARPED, **(roi or {})}),
        ),
        *pixel_statistics(in_channels, pixels),
    )


def rcnn_c4(
    body: Callable[..., ResNet],
    system: str,
    num_classes: int,
    conventions: str = "tracesight",
    *,
    in_channels: int = 3,
    pixels: Mapping[str, Sequence[float]] | None = None,
    norm: str = "frozen",
    pool: str = "align",
    pool_size: int = 14,
    mask_channels: int = 256,
    mask_agnostic: bool = False,
    anchor_sizes: Sizes = EVERY_SIZE,
    anchor_ratios: tuple[float, ...] = RATIOS,
    rpn: dict | None = None,
    roi: dict | None = None,
) -> RCNN:
    """Fast, Faster or Mask R-CNN on the fourth stage, the fifth one being the head of every region ("C4").

    system: "rpn", "fast", "faster" or "mask". pool: "align" for RoIAlign, "pool" for RoIPool; pool_size: bins a side,
    which the fifth stage halves. anchor_sizes: one tuple, all on one level. Other arguments as in `rcnn_fpn`. The mask
    head reads the same stage's features (Mask R-CNN, figure 4, left), and its masks are `pool_size` pixels a side.
    """
    rules = CONVENTIONS[conventions]
    network = body(None, norm=norm, norm_eps=rules.norm_eps, in_channels=in_channels)
    width = network.channels[-1]
    head = StageHead(*network.cut_last())
    backbone = StageBackbone(network)
    region = partial(region_features, pool, pool_size, backbone.strides, rules)
    masks = {}
    if system == "mask":
        predictor = MaskPredictor(width, mask_channels, 1 if mask_agnostic else num_classes)
        masks = {"mask_roi_pool": region(), "mask_predictor": predictor}
    return RCNN(
        backbone,
        first_stage(system, network.channels[-1], anchor_sizes, anchor_ratios, 1, {**ONE_LEVEL, **(rpn or {})}),
        second_stage(system, num_classes, roi, region(), head, width, rules, masks),
        *pixel_statistics(in_channels, pixels),
    )


def rcnn_dc5(
    body: Callable[..., ResNet],
    system: str,
    num_classes: int,
    conventions: str = "tracesight",
    *,
    in_channels: int = 3,
    pixels: Mapping[str, Sequence[float]] | None = None,
    norm: str = "frozen",
    pool: str = "align",
    box_channels: int = 1024,
    anchor_sizes: Sizes = EVERY_SIZE,
    anchor_ratios: tuple[float, ...] = RATIOS,
    rpn: dict | None = None,
    roi: dict | None = None,
) -> RCNN:
    """Fast or Faster R-CNN on the fifth stage with the stride of the fourth, dilated ("DC5"), and two layers a region.

    Dai et al., "R-FCN" (2016), section 2; as detectron2 has it, every 3×3 convolution of the stage is dilated.
    system: "rpn", "fast" or "faster". Other arguments as in `rcnn_c4`; box_channels as in `rcnn_fpn`.
    """
    rules = CONVENTIONS[conventions]
    network = body(None, norm=norm, norm_eps=rules.norm_eps, in_channels=in_channels)
    network.dilate_last()
    backbone, width = StageBackbone(network), network.channels[-1]
    region = region_features(pool, 7, backbone.strides, rules)
    return RCNN(
        backbone,
        first_stage(system, width, anchor_sizes, anchor_ratios, 1, {**ONE_LEVEL, **(rpn or {})}),
        second_stage(system, num_classes, roi, region, BoxHead(width, 7, box_channels), box_channels, rules),
        *pixel_statistics(in_channels, pixels),
    )


def rcnn_fpn(
    body: Callable[..., ResNet],
    system: str,
    num_classes: int,
    conventions: str = "tracesight",
    *,
    in_channels: int = 3,
    pixels: Mapping[str, Sequence[float]] | None = None,
    norm: str = "frozen",
    head_norm: str | None = None,
    fpn_channels: int = 256,
    p6: str = "pool",
    rpn_convs: int = 1,
    box_convs: int = 0,
    box_channels: int = 1024,
    mask_channels: int = 256,
    mask_agnostic: bool = False,
    num_keypoints: int = 0,
    keypoint_channels: int = 512,
    anchor_sizes: Sizes = ((32,), (64,), (128,), (256,), (512,)),
    anchor_ratios: tuple[float, ...] = RATIOS,
    rpn: dict | None = None,
    roi: dict | None = None,
) -> RCNN:
    """Fast, Faster or Mask R-CNN on a backbone with a feature pyramid: the whole architecture.

    body: a builder of the catalogue whose stages have strides 4 to 32, such as `resnet`. system: "rpn" (the first stage
    alone), "fast" (the second one alone, on given proposals), "faster" or "mask". num_classes counts background.
    in_channels: of a picture. pixels: {"mean": […], "std": […]} of each channel in 0–1; None for those of ImageNet, or
    0.5 and 0.25 where in_channels is not 3. norm is the backbone's ("frozen", "batch" or "group"), head_norm that of
    the pyramid and the heads' convolutions (None: none). fpn_channels, box_channels, mask_channels, keypoint_channels:
    widths of the pyramid and of each head. num_keypoints: the most points of an object; 0: none are found. p6: "pool"
    or "conv". rpn_convs and box_convs: 3×3 convolutions of the RPN, and of the box head before one layer (0: two
    layers). mask_agnostic: one mask a region, whatever its class.
    anchor_sizes: square roots of anchors' areas in pixels, a tuple for each of P2 to P6; anchor_ratios: height over
    width. rpn and roi replace fields of `ProposalSettings` and `RegionSettings` (max_objects, score_threshold, …).
    """
    rules = CONVENTIONS[conventions]
    network = body(None, norm=norm, norm_eps=rules.norm_eps, in_channels=in_channels)
    heads = None if head_norm is None else norm_layer(head_norm)
    backbone = PyramidBackbone(network, fpn_channels, heads, p6)
    # P6 is for the RPN alone (FPN, section 4.1).
    pooled = backbone.strides[:4]
    if box_convs:
        box_head: nn.Module = ConvBoxHead(fpn_channels, 7, box_channels, box_convs, heads)
    else:
        box_head = BoxHead(fpn_channels, 7, box_channels)
    more: dict[str, Any] = {}
    if system == "mask":
        more = {
            "mask_roi_pool": region_features("align", 14, pooled, rules),
            "mask_head": MaskHead(fpn_channels, mask_channels, heads),
            "mask_predictor": MaskPredictor(mask_channels, mask_channels, 1 if mask_agnostic else num_classes),
        }
    if num_keypoints:
        more |= {
            "keypoint_roi_pool": region_features("align", 14, pooled, rules),
            "keypoint_head": KeypointHead(fpn_channels, keypoint_channels),
            "keypoint_predictor": KeypointPredictor(keypoint_channels, num_keypoints),
        }
    region = region_features("align", 7, pooled, rules)
    return RCNN(
        backbone,
        first_stage(system, fpn_channels, anchor_sizes, anchor_ratios, len(backbone.strides), rpn or {}, rpn_convs),
        second_stage(system, num_classes, roi, region, box_head, box_channels, rules, more),
        *pixel_statistics(in_channels, pixels),
    )


class StageBackbone(nn.Module):
    """The last stage of a network as the only feature map: pictures (N, C, H, W) in, (N, channels, …) out."""

    def __init__(self, body: ResNet) -> None:
        super().__init__()
        self.body, self.strides = body, (body.strides[-1],)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.body.features(images)[-1:]


def region_features(pool: str, size: int, strides: tuple[int, ...], rules: Conventions) -> RegionAlign | RegionPool:
    """RoIAlign ("align") or RoIPool ("pool") of `size` bins a side. Raises ValueError for another name."""
    if pool not in ("align", "pool"):
        raise ValueError(f"pool is {pool!r}; it can be 'align' or 'pool'")
    if pool == "pool":
        return RegionPool(size, strides)
    return RegionAlign(size, strides, rules.roi_sampling, rules.roi_aligned)


def first_stage(
    system: str, channels: int, sizes: Sizes, ratios: tuple[float, ...], levels: int, settings: dict, convs: int = 1
) -> nn.Module:
    """The RPN, or none where proposals are given."""
    if system == "fast":
        return GivenProposals()
    sizes = tuple(tuple(level) for level in sizes)
    return RegionProposalNetwork(channels, sizes, tuple(ratios), levels, ProposalSettings(**settings), convs)


def second_stage(
    system: str,
    num_classes: int,
    settings: dict | None,
    region: RegionAlign | RegionPool,
    box_head: nn.Module,
    width: int,
    rules: Conventions,
    more: dict[str, Any] | None = None,
) -> RoIHeads | ProposalsAlone:
    """The heads over regions, or none for the RPN alone. width: of what the box head gives. more: further heads."""
    if system == "rpn":
        if num_classes != 2:
            raise ValueError(f"num_classes is {num_classes}; an RPN tells objects from background, which is 2")
        alone = {"max_objects": 1000, "score_threshold": 0.0, **(settings or {})}
        return ProposalsAlone(RegionSettings(**alone))
    return RoIHeads(
        region,
        box_head,
        BoxPredictor(width, num_classes),
        RegionSettings(**{**(GIVEN if system == "fast" else {}), **(settings or {})}),
        mask_target_aligned=rules.mask_target_aligned,
        **(more or {}),
    )
