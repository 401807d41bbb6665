"""Test-time augmentation: pictures are seen several times, mirrored and at other sizes, and what is found is merged.

As He et al. test their best models ("Mask R-CNN", 2017, appendix B): boxes of all views compete in one suppression;
the masks of those that stay are predicted in every view and averaged. So are keypoints' heatmaps, before the softmax,
as in Detectron; in a mirror a left hand's is the right hand's.

N pictures, D detections, R of them that are valid, K keypoints of an object, S cells a side of a heatmap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tracesight.data.batch import Batch
from tracesight.models.detections import Detections
from tracesight.models.rcnn import RCNN
from tracesight.models.roi_heads import RoIHeads
from tracesight.ops.trim import trim


class View(NamedTuple):
    """The same pictures in another size, and whether left is right in them."""

    batch: Batch
    mirrored: bool


def detect_in_views(
    model: RCNN,
    views: Sequence[View],
    mirrored: Tensor | None = None,
    *,
    max_objects: int | None = None,
    score_threshold: float | None = None,
    nms: str | None = None,
) -> Detections:
    """What `model` finds in all views together, in pixels of the first one, which is not mirrored.

    mirrored: (classes, K) int64, by label which keypoint each one is in a mirror, 0 being background; needed where the
    model finds keypoints and a view is mirrored. The others replace the model's own settings for this call.
    """
    heads = model.roi_heads
    assert isinstance(heads, RoIHeads)
    most = heads.settings.max_objects if max_objects is None else max_objects
    least = heads.settings.score_threshold if score_threshold is None else score_threshold
    tables, found = [], []
    for view in views:
        table, proposals, _ = model.regions(view.batch)
        alone = heads.find(table, proposals, view.batch.sizes, max_objects=most, score_threshold=least, nms=nms)
        tables.append(table)
        found.append(alone._replace(boxes=moved(alone.boxes, view, views[0])))
    boxes, scores, labels, valid = (torch.cat(columns, dim=1) for columns in zip(*(each[:4] for each in found)))
    merged = heads.suppress(boxes, scores, labels, valid, least=least, most=most, method=nms)
    masks: list[Tensor] = []
    heatmaps: list[Tensor] = []
    for view, table in zip(views, tables):
        here = merged._replace(boxes=moved(merged.boxes, views[0], view).masked_fill(~merged.valid.unsqueeze(-1), 0.0))
        if heads.mask_predictor is not None:
            seen = heads.masks(table, here)
            masks.append(seen.flip(-1) if view.mirrored else seen)
        if heads.keypoint_head is not None:
            seen = heads.heatmaps(table, here)
            heatmaps.append(_turned(seen, here, mirrored) if view.mirrored else seen)
    return merged._replace(
        masks=torch.stack(masks).mean(0) if masks else None,
        keypoints=heads.keypoints(torch.stack(heatmaps).mean(0), merged) if heatmaps else None,
    )


def _turned(heatmaps: Tensor, found: Detections, mirrored: Tensor | None) -> Tensor:
    """Heatmaps (R, K, S, S) of a mirrored view turned back, each point's in the place of the one it is in a mirror."""
    assert mirrored is not None
    _, labels = trim(found.valid.flatten(), found.labels.flatten())
    places = mirrored[labels][..., None, None].expand_as(heatmaps)
    return heatmaps.flip(-1).gather(1, places)


def moved(boxes: Tensor, source: View, target: View) -> Tensor:
    """boxes (N, D, 4) of one view where they lie in another."""
    scale = (target.batch.sizes / source.batch.sizes).flip(-1).repeat(1, 2).unsqueeze(1).to(boxes.dtype)
    boxes = boxes * scale
    if source.mirrored == target.mirrored:
        return boxes
    x1, y1, x2, y2 = boxes.unbind(-1)
    width = target.batch.sizes[:, 1:].to(boxes.dtype)
    return torch.stack((width - x2, y1, width - x1, y2), dim=-1)
