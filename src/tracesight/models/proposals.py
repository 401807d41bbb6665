"""Where to look: proposals as one form, whoever makes them, and the two systems that have only one of the two stages.

N pictures, P proposals (padded), D detections (padded).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from tracesight.data.batch import Batch, Targets
from tracesight.models.detections import Detections
from tracesight.ops.trim import trim_tail

if TYPE_CHECKING:
    from tracesight.models.roi_heads import RegionSettings


class Proposals(NamedTuple):
    """boxes (N, P, 4) `xyxy` in pixels of the network's picture, best first; valid (N, P); scores (N, P), 0–1."""

    boxes: Tensor
    valid: Tensor
    scores: Tensor


class GivenProposals(nn.Module):
    """Proposals that come with the batch: those of a file, or of selective search. No parameters."""

    def forward(
        self, features: list[Tensor], batch: Batch, targets: Targets | None
    ) -> tuple[Proposals, dict[str, Tensor]]:
        """The batch's proposals, and no losses. Raises ValueError for a batch without any."""
        if batch.proposals is None or batch.proposals_valid is None:
            raise ValueError("this model finds no proposals of its own, and the batch holds none")
        valid, boxes = batch.proposals_valid, batch.proposals
        if targets is None:
            valid, boxes = trim_tail(valid, boxes)
        # Nobody says how good they are; their order does.
        rank = torch.arange(valid.shape[1], device=valid.device, dtype=boxes.dtype)
        return Proposals(boxes, valid, (1 - rank / max(valid.shape[1], 1)) * valid), {}


def proposes_only(model: nn.Module) -> bool:
    """Whether the model is a region proposal network alone: what it finds are proposals, of no category."""
    return isinstance(getattr(model, "roi_heads", None), ProposalsAlone)


class ProposalsAlone(nn.Module):
    """No second stage: the proposals are the detections, all of the one class "object". No parameters."""

    levels = 1

    def __init__(self, settings: RegionSettings) -> None:
        super().__init__()
        self.settings = settings

    def sample(self, proposals: Proposals, batch: Batch, targets: Targets) -> Any:
        """None: nothing trains on regions."""

    def losses(self, *_: Any) -> dict[str, Tensor]:
        """None."""
        return {}

    def detect(
        self,
        table: Any,
        proposals: Proposals,
        sizes: Tensor,
        *,
        max_objects: int | None = None,
        score_threshold: float | None = None,
        nms: str | None = None,
    ) -> Detections:
        """The best proposals whose objectness is over the threshold; the RPN has left out near-duplicates already."""
        most = self.settings.max_objects if max_objects is None else max_objects
        least = self.settings.score_threshold if score_threshold is None else score_threshold
        short = max(0, most - proposals.valid.shape[1])
        boxes, valid, scores = (
            torch.nn.functional.pad(column[:, :most], (0, 0) * (column.ndim - 2) + (0, short)) for column in proposals
        )
        valid = valid & (scores > least)
        boxes, scores = boxes.masked_fill(~valid.unsqueeze(-1), 0.0), scores.masked_fill(~valid, 0.0)
        return Detections(boxes, scores, valid.to(torch.int64), valid, None)
