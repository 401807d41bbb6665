"""Test-time augmentation: pictures are seen several times, mirrored and at other sizes, and what is found is merged.

As He et al. test their best models ("Mask R-CNN", 2017, appendix B): boxes of all views compete in one suppression;
the masks of those that stay are predicted in every view and averaged. Keypoints are those of the first view.

N pictures, V views, D detections.
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


class View(NamedTuple):
    """The same pictures in another size, and whether left is right in them."""

    batch: Batch
    mirrored: bool


def detect_in_views(
    model: RCNN, views: Sequence[View], *, max_objects: int | None = None, score_threshold: float | None = None
) -> Detections:
    """What `model` finds in all views together, in pixels of the first one, which is not mirrored.

    max_objects and score_threshold replace the model's own settings for this call.
    """
    heads = model.roi_heads
    assert isinstance(heads, RoIHeads)
    most = heads.settings.max_objects if max_objects is None else max_objects
    least = heads.settings.score_threshold if score_threshold is None else score_threshold
    tables, found = [], []
    for view in views:
        table, proposals, _ = model.regions(view.batch)
        alone = heads.find(table, proposals, view.batch.sizes, max_objects=most, score_threshold=least)
        tables.append(table)
        found.append(alone._replace(boxes=moved(alone.boxes, view, views[0])))
    boxes, scores, labels, valid = (torch.cat(columns, dim=1) for columns in zip(*(each[:4] for each in found)))
    merged = heads.suppress(boxes, scores, labels, valid, least, most)
    described = heads.describe(tables[0], merged)
    if described.masks is None:
        return described
    masks = described.masks
    for view, table in zip(views[1:], tables[1:]):
        seen = heads.describe(table, merged._replace(boxes=moved(merged.boxes, views[0], view))).masks
        assert seen is not None
        masks = masks + (seen.flip(-1) if view.mirrored else seen)
    return described._replace(masks=masks / len(views))


def moved(boxes: Tensor, source: View, target: View) -> Tensor:
    """boxes (N, D, 4) of one view where they lie in another."""
    scale = (target.batch.sizes / source.batch.sizes).flip(-1).repeat(1, 2).unsqueeze(1).to(boxes.dtype)
    boxes = boxes * scale
    if source.mirrored == target.mirrored:
        return boxes
    x1, y1, x2, y2 = boxes.unbind(-1)
    width = target.batch.sizes[:, 1:].to(boxes.dtype)
    return torch.stack((width - x2, y1, width - x1, y2), dim=-1)
