"""The second stage: Girshick, "Fast R-CNN" (2015), section 2, and He et al., "Mask R-CNN" (2017), section 3.

N pictures, P proposals (padded), B sampled regions a picture, R regions of all pictures in one row, C classes with
background, index 0. `pred_` is what the network says, `gt_` what the labels say. Parameter names are torchvision's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracesight.data.batch import Batch, Targets
from tracesight.models.detections import Detections
from tracesight.models.proposals import Proposals
from tracesight.models.warped import WarpedRegions
from tracesight.ops.boxes import clip_boxes
from tracesight.ops.collectives import mean_loss
from tracesight.ops.deltas import decode, encode
from tracesight.ops.keypoints import keypoint_certainty, keypoint_peaks, keypoint_targets
from tracesight.ops.masks import mask_targets
from tracesight.ops.matching import POSITIVE, ignore_crowds, match, sample
from tracesight.ops.nms import nms
from tracesight.ops.pyramid import FeatureTable
from tracesight.ops.roi_align import multilevel_roi_align
from tracesight.ops.roi_pool import multilevel_roi_pool
from tracesight.ops.soft_nms import METHODS, soft_nms
from tracesight.ops.trim import trim, trim_tail

# Fast R-CNN's scale of its regression targets: their standard deviations are about 0.1 and 0.2.
WEIGHTS = (10.0, 5.0)
LEAST_SIDE = 1e-2
# Candidates that compete in the last NMS; what lies below this many better ones never reaches the result.
MOST_CANDIDATES = 4096


@dataclass(frozen=True)
class RegionSettings:
    """Which proposals train, and which detections count (Fast R-CNN, section 2.3; Mask R-CNN, section 3.1)."""

    batch: int = 512  # regions sampled a picture
    positive_fraction: float = 0.25
    positive_iou: float = 0.5
    nms_iou: float = 0.5
    nms: str = "hard"  # or soft-NMS, "linear" or "gaussian": scores of overlapped boxes fall
    soft_sigma: float = 0.5  # of "gaussian"
    score_threshold: float = 0.05
    max_objects: int = 100

    def __post_init__(self) -> None:
        if self.nms not in ("hard", *METHODS):
            raise ValueError(f"roi.nms is {self.nms!r}; use hard, {' or '.join(METHODS)}")


class RegionAlign(nn.Module):
    """RoIAlign on the level that a region belongs to; no parameters."""

    def __init__(self, output_size: int, strides: tuple[int, ...], sampling: int, aligned: bool) -> None:
        super().__init__()
        self.output_size, self.strides, self.sampling, self.aligned = output_size, strides, sampling, aligned

    def forward(self, table: FeatureTable, boxes: Tensor, picture: Tensor) -> Tensor:
        """(R, channels, output_size, output_size) of boxes (R, 4) that belong to pictures (R,)."""
        return multilevel_roi_align(
            table,
            boxes,
            picture,
            self.strides,
            output_size=self.output_size,
            sampling=self.sampling,
            aligned=self.aligned,
        )


class RegionPool(nn.Module):
    """RoIPool (Fast R-CNN, section 2.1) on the level that a region belongs to; no parameters."""

    def __init__(self, output_size: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.output_size, self.strides = output_size, strides

    def forward(self, table: FeatureTable, boxes: Tensor, picture: Tensor) -> Tensor:
        """(R, channels, output_size, output_size) of boxes (R, 4) that belong to pictures (R,)."""
        return multilevel_roi_pool(table, boxes, picture, self.strides, output_size=self.output_size)


class Sampled(NamedTuple):
    """Regions chosen to train on: boxes (N, B, 4), labels (N, B), 0 for background, matched (N, B), valid (N, B)."""

    boxes: Tensor
    labels: Tensor
    matched: Tensor
    valid: Tensor


def _rows(values: Tensor) -> Tensor:
    """(N, K, ...) as (N × K, ...)."""
    return values.flatten(0, 1)


def _pictures(valid: Tensor) -> Tensor:
    """Which picture each of N × K regions belongs to: (N × K,)."""
    return torch.arange(valid.shape[0], device=valid.device)[:, None].expand_as(valid).flatten()


def _back(values: Tensor, place: Tensor, valid: Tensor) -> Tensor:
    """values (R, ...) at their places (R,) among N × K regions: (N, K, ...), 0 at the others."""
    every = values.new_zeros(valid.numel(), *values.shape[1:]).index_copy(0, place, values)
    return every.view(*valid.shape, *values.shape[1:])


def _of(values: Tensor, index: Tensor) -> Tensor:
    """values (N, M, ...) at index (N, K): (N, K, ...)."""
    shape = (*index.shape, *values.shape[2:])
    return values.gather(1, index.reshape(*index.shape, *[1] * (values.ndim - 2)).expand(shape))


class RoIHeads(nn.Module):
    """Box head, and mask and keypoint heads where there are any, over sampled proposals (training) or all of them.

    A mask predictor without a mask head reads what the box head makes of a region before it averages it: C4's.
    """

    def __init__(
        self,
        box_roi_pool: RegionAlign | RegionPool | WarpedRegions,
        box_head: nn.Module,
        box_predictor: nn.Module,
        settings: RegionSettings,
        *,
        mask_roi_pool: RegionAlign | RegionPool | None = None,
        mask_head: nn.Module | None = None,
        mask_predictor: nn.Module | None = None,
        mask_target_aligned: bool = False,
        keypoint_roi_pool: RegionAlign | None = None,
        keypoint_head: nn.Module | None = None,
        keypoint_predictor: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.box_roi_pool, self.box_head, self.box_predictor = box_roi_pool, box_head, box_predictor
        self.mask_roi_pool, self.mask_head, self.mask_predictor = mask_roi_pool, mask_head, mask_predictor
        self.keypoint_roi_pool = keypoint_roi_pool
        self.keypoint_head, self.keypoint_predictor = keypoint_head, keypoint_predictor
        self.settings, self.mask_target_aligned = settings, mask_target_aligned
        # Of the pyramid, the finest first; all heads read the same.
        self.levels = len(box_roi_pool.strides)

    @torch.no_grad()
    def sample(self, proposals: Proposals, batch: Batch, targets: Targets) -> Sampled:
        """Choose regions among proposals and the objects' own boxes, a quarter of them positive at most."""
        s = self.settings
        # The labels' boxes too, or the first steps would have no positives (as in every implementation).
        boxes = torch.cat((proposals.boxes, targets.boxes), dim=1)
        matched, status = match(
            targets.boxes, targets.valid, boxes, high=s.positive_iou, low=s.positive_iou, best_of_each=False
        )
        status = ignore_crowds(status, boxes, targets.boxes, targets.crowd)
        status = status.masked_fill(~torch.cat((proposals.valid, targets.valid), dim=1), -1)
        index, chosen = sample(status, batch.keys, "roi", s.batch, s.positive_fraction)
        matched = matched.gather(1, index)
        positive = (status.gather(1, index) == POSITIVE) & chosen
        labels = targets.labels.gather(1, matched) * positive
        return Sampled(_of(boxes, index), labels, matched, chosen)

    def losses(self, table: FeatureTable, sampled: Sampled, batch: Batch, targets: Targets) -> dict[str, Tensor]:
        """Multi-task loss, Fast R-CNN, equation 1, and the mask's term, Mask R-CNN, section 3."""
        with torch.no_grad():
            gt_deltas = encode(_of(targets.boxes, sampled.matched), sampled.boxes, WEIGHTS)
        valid, boxes, labels, deltas, picture = trim(
            _rows(sampled.valid),
            _rows(sampled.boxes),
            _rows(sampled.labels),
            _rows(gt_deltas),
            _pictures(sampled.valid),
        )
        pred_logits, pred_deltas = self.box_predictor(self.box_head(self.box_roi_pool(table, boxes, picture)))
        pred_deltas = pred_deltas.unflatten(1, (-1, 4))
        pred_deltas = pred_deltas.gather(1, labels[:, None, None].expand(-1, 1, 4)).squeeze(1)
        classifier = F.cross_entropy(pred_logits, labels, reduction="none")
        regression = F.smooth_l1_loss(pred_deltas, deltas, beta=1 / 9, reduction="none").sum(-1)
        zero, count = classifier.new_zeros(()), valid.sum()
        losses = {
            "loss_classifier": mean_loss(torch.where(valid, classifier, zero).sum(), count),
            "loss_box_reg": mean_loss(torch.where(valid & (labels > 0), regression, zero).sum(), count),
        }
        if self.mask_predictor is not None:
            losses["loss_mask"] = self.mask_loss(table, sampled, batch, targets)
        if self.keypoint_head is not None:
            losses["loss_keypoint"] = self.keypoint_loss(table, sampled, targets)
        return losses

    def mask_loss(self, table: FeatureTable, sampled: Sampled, batch: Batch, targets: Targets) -> Tensor:
        """Binary cross entropy, a mean over the positive regions' pixels, of the mask of the object's own class."""
        # Positives come first and are limited in number: the rest never reaches the mask head.
        most = int(self.settings.batch * self.settings.positive_fraction)
        matched, labels = sampled.matched[:, :most], sampled.labels[:, :most]
        objects = (targets.mask_offsets, targets.mask_sizes, targets.mask_boxes)
        # An object that is labelled with a box alone says nothing about masks: its crop is 0 × 0.
        masked = _of(targets.mask_sizes.amin(-1) > 0, matched)
        valid, boxes, labels, picture, offsets, crop_sizes, crop_boxes = trim(
            _rows((labels > 0) & masked),
            _rows(sampled.boxes[:, :most]),
            _rows(labels),
            _pictures(labels),
            *(_rows(_of(values, matched)) for values in objects),
        )
        pred = self.mask_logits(table, boxes, picture, labels)
        gt = mask_targets(
            targets.mask_pixels,
            offsets,
            crop_sizes,
            crop_boxes,
            boxes,
            batch.sizes[picture],
            output_size=pred.shape[-1],
            aligned=self.mask_target_aligned,
        )
        loss = F.binary_cross_entropy_with_logits(pred, gt, reduction="none").mean(dim=(1, 2))
        return mean_loss(torch.where(valid, loss, loss.new_zeros(())).sum(), valid.sum())

    def mask_logits(self, table: FeatureTable, boxes: Tensor, picture: Tensor, labels: Tensor) -> Tensor:
        """Logits (R, P, P) of the masks of classes `labels` (R,), or of whatever class, over `boxes` (R, 4)."""
        assert self.mask_roi_pool is not None and self.mask_predictor is not None
        regions = self.mask_roi_pool(table, boxes, picture)
        features = self.box_head.features(regions) if self.mask_head is None else self.mask_head(regions)  # type: ignore[operator]
        logits = self.mask_predictor(features)
        if logits.shape[1] == 1:
            return logits[:, 0]
        return logits[torch.arange(labels.shape[0], device=labels.device), labels]

    def keypoint_loss(self, table: FeatureTable, sampled: Sampled, targets: Targets) -> Tensor:
        """Cross entropy over the cells of a heatmap, a mean over labelled points inside their region (section 5)."""
        most = int(self.settings.batch * self.settings.positive_fraction)
        labels, points = sampled.labels[:, :most], _of(targets.keypoints, sampled.matched[:, :most])
        labelled = (labels > 0) & (points[..., 2] > 0).any(-1)
        valid, boxes, picture, points = trim(
            _rows(labelled), _rows(sampled.boxes[:, :most]), _pictures(labels), _rows(points)
        )
        pred = self.keypoint_logits(table, boxes, picture)
        cell, counts = keypoint_targets(points, boxes, pred.shape[-1])
        loss = F.cross_entropy(pred.flatten(2).flatten(0, 1), cell.flatten(), reduction="none")
        counts = (counts & valid.unsqueeze(1)).flatten()
        return mean_loss(torch.where(counts, loss, loss.new_zeros(())).sum(), counts.sum())

    def keypoint_logits(self, table: FeatureTable, boxes: Tensor, picture: Tensor) -> Tensor:
        """Heatmaps (R, K, 56, 56) over `boxes` (R, 4)."""
        assert self.keypoint_roi_pool is not None and self.keypoint_head is not None
        assert self.keypoint_predictor is not None
        return self.keypoint_predictor(self.keypoint_head(self.keypoint_roi_pool(table, boxes, picture)))

    def detect(
        self,
        table: FeatureTable,
        proposals: Proposals,
        sizes: Tensor,
        *,
        max_objects: int | None = None,
        score_threshold: float | None = None,
        nms: str | None = None,
    ) -> Detections:
        """What `find` finds, with masks and keypoints."""
        found = self.find(table, proposals, sizes, max_objects=max_objects, score_threshold=score_threshold, nms=nms)
        return self.describe(table, found)

    def find(
        self,
        table: FeatureTable,
        proposals: Proposals,
        sizes: Tensor,
        *,
        max_objects: int | None = None,
        score_threshold: float | None = None,
        nms: str | None = None,
    ) -> Detections:
        """The best boxes of each class over the score threshold, without near-duplicates; boxes alone."""
        s = self.settings
        most = s.max_objects if max_objects is None else max_objects
        least = s.score_threshold if score_threshold is None else score_threshold
        boxes, valid, _ = proposals
        pooled = self.box_roi_pool(table, _rows(boxes), _pictures(valid))
        pred_logits, pred_deltas = self.box_predictor(self.box_head(pooled))
        shape = (*valid.shape, pred_logits.shape[-1])
        # Background is no detection: classes 1 to C-1 of every proposal compete.
        scores = (pred_logits.softmax(-1).view(shape)[..., 1:] * valid.unsqueeze(-1)).flatten(1)
        score, candidate = scores.topk(min(MOST_CANDIDATES, scores.shape[1]), dim=1)
        live, score, candidate = trim_tail(score > least, score, candidate)
        classes = shape[2] - 1
        row, label = torch.div(candidate, classes, rounding_mode="floor"), candidate % classes + 1
        deltas = _of(pred_deltas.view(shape[0], shape[1] * shape[2], 4), row * shape[2] + label)
        boxes = clip_boxes(decode(deltas, _of(boxes, row), WEIGHTS), sizes)
        live = live & ((boxes[..., 2:] - boxes[..., :2]).amin(-1) >= LEAST_SIDE)
        return self.suppress(boxes, score, label, live, least=least, most=most, method=nms)

    def suppress(
        self,
        boxes: Tensor,
        score: Tensor,
        label: Tensor,
        live: Tensor,
        *,
        least: float,
        most: int,
        method: str | None = None,
    ) -> Detections:
        """The `most` best of boxes (N, K, 4) without near-duplicates, K being any number; boxes alone.

        method: as `RegionSettings.nms`, None for the model's own.
        """
        s, method = self.settings, method or self.settings.nms
        if method == "hard":
            index, kept = nms(boxes, score, label, live, s.nms_iou, most)
            score = score.gather(1, index)
        else:
            index, kept, score = soft_nms(
                boxes, score, label, live, method=method, iou=s.nms_iou, sigma=s.soft_sigma, least=least, max_out=most
            )
        boxes = _of(boxes, index).masked_fill(~kept.unsqueeze(-1), 0.0)
        label = label.gather(1, index).masked_fill(~kept, 0)
        return Detections(boxes, score.masked_fill(~kept, 0.0), label, kept, None, None)

    def describe(self, table: FeatureTable, found: Detections) -> Detections:
        """The same detections with masks and keypoints, where there are heads for them."""
        return found._replace(
            masks=None if self.mask_predictor is None else self.masks(table, found),
            keypoints=None if self.keypoint_head is None else self.keypoints(self.heatmaps(table, found), found),
        )

    def masks(self, table: FeatureTable, found: Detections) -> Tensor:
        """Masks (N, D, 28, 28) of `found`, as `Detections` has them."""
        boxes, labels, valid = found.boxes, found.labels, found.valid
        every = torch.arange(valid.numel(), device=valid.device)
        live, box, label, picture, place = trim(_rows(valid), _rows(boxes), _rows(labels), _pictures(valid), every)
        pred = self.mask_logits(table, box, picture, label).sigmoid().masked_fill(~live[:, None, None], 0.0)
        return _back(pred, place, valid)

    def heatmaps(self, table: FeatureTable, found: Detections) -> Tensor:
        """Heatmaps (R, K, 56, 56) over the boxes of the detections that `trim` leaves."""
        _, boxes, picture = trim(_rows(found.valid), _rows(found.boxes), _pictures(found.valid))
        return self.keypoint_logits(table, boxes, picture)

    def keypoints(self, heatmaps: Tensor, found: Detections) -> Tensor:
        """Keypoints (N, D, K, 3) of `found`, as `Detections` has them, by its `heatmaps`."""
        every = torch.arange(found.valid.numel(), device=found.valid.device)
        live, boxes, place = trim(_rows(found.valid), _rows(found.boxes), every)
        sure = keypoint_certainty(heatmaps).unsqueeze(-1)
        points = torch.cat((keypoint_peaks(heatmaps, boxes)[0], sure), dim=-1)
        return _back(points.masked_fill(~live[:, None, None], 0.0), place, found.valid)
