"""Region proposal network: Ren et al., "Faster R-CNN" (2015), section 3.1, on a pyramid as FPN (2017), section 4.1.

N pictures, L levels, A anchors in all levels together, K candidates a level, M objects (padded), P proposals (padded).
Every level's cell proposes a few anchors; a 3×3 convolution and two 1×1 siblings, shared by all levels, give each an
objectness logit and four deltas. Parameter names are torchvision's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracesight.data.batch import Batch, Targets
from tracesight.models.anchors import AnchorGrid, anchor_grid, anchors_at, cell_anchors
from tracesight.models.box_heads import conv_block
from tracesight.models.initialise import initialise
from tracesight.models.proposals import Proposals
from tracesight.ops.boxes import clip_boxes
from tracesight.ops.collectives import mean_loss
from tracesight.ops.deltas import decode, encode
from tracesight.ops.matching import POSITIVE, ignore_crowds, match, sample
from tracesight.ops.nms import nms
from tracesight.ops.precision import full_precision
from tracesight.ops.pyramid import best_of_each_level
from tracesight.ops.trim import trim_tail

WEIGHTS = (1.0, 1.0)
# Proposals thinner than this, in pixels, are noise.
LEAST_SIDE = 1e-3


@dataclass(frozen=True)
class ProposalSettings:
    """How many anchors survive, and which train (Faster R-CNN, section 3.1.3; FPN, section 4.1)."""

    pre_nms_train: int = 2000  # a level
    post_nms_train: int = 2000  # a picture
    pre_nms_test: int = 1000
    post_nms_test: int = 1000
    nms_iou: float = 0.7
    batch: int = 256  # anchors sampled a picture
    positive_fraction: float = 0.5
    positive_iou: float = 0.7
    negative_iou: float = 0.3


class RPNHead(nn.Module):
    """3×3 convolutions, one in the paper, then objectness and deltas of the anchors of each cell."""

    def __init__(self, channels: int, anchors: int, convolutions: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(*(conv_block(channels, channels, None) for _ in range(convolutions)))
        self.cls_logits = nn.Conv2d(channels, anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, anchors * 4, 1)
        initialise(self, partial(nn.init.normal_, std=0.01))

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (N, A) and deltas (N, A, 4) in the order of `anchors_at`, not in half precision."""
        logits, deltas = [], []
        for feature in features:
            hidden = self.conv(feature)
            logits.append(full_precision(self.cls_logits(hidden).permute(0, 2, 3, 1).flatten(1)))
            deltas.append(
                full_precision(self.bbox_pred(hidden).permute(0, 2, 3, 1).unflatten(3, (-1, 4)).flatten(1, 3))
            )
        return torch.cat(logits, dim=1), torch.cat(deltas, dim=1)


class RegionProposalNetwork(nn.Module):
    """Head, anchors and settings; `propose` gives proposals and, with targets, the two losses."""

    cells: Tensor

    def __init__(
        self,
        channels: int,
        anchor_sizes: tuple[tuple[float, ...], ...],
        anchor_ratios: tuple[float, ...],
        levels: int,
        settings: ProposalSettings,
        convolutions: int = 1,
    ) -> None:
        super().__init__()
        if len(anchor_sizes) != levels:
            raise ValueError(f"anchor_sizes has {len(anchor_sizes)} levels; the backbone has {levels}")
        if len({len(sizes) for sizes in anchor_sizes}) != 1:
            raise ValueError("anchor_sizes must have equally many sizes at every level: the head is shared by all")
        self.head = RPNHead(channels, len(anchor_sizes[0]) * len(anchor_ratios), convolutions)
        self.settings = settings
        cells = torch.stack([cell_anchors(tuple(sizes), anchor_ratios) for sizes in anchor_sizes])
        self.register_buffer("cells", cells, persistent=False)

    def grid(self, features: list[Tensor], images: Tensor) -> AnchorGrid:
        """Where the anchors of a pyramid over padded pictures `images` (N, C, H, W) lie."""
        return anchor_grid(self.cells, features, (images.shape[2], images.shape[3]))

    def forward(
        self, features: list[Tensor], batch: Batch, targets: Targets | None
    ) -> tuple[Proposals, dict[str, Tensor]]:
        """Proposals, and the losses (empty without targets)."""
        grid = self.grid(features, batch.images)
        logits, deltas = self.head(features)
        proposals = self.propose(grid, logits, deltas, batch.sizes, train=targets is not None)
        losses: dict[str, Tensor] = {}
        if targets is not None:
            losses = self.losses(every_anchor(grid, logits), logits, deltas, batch, targets)
        return proposals, losses

    def propose(self, grid: AnchorGrid, logits: Tensor, deltas: Tensor, sizes: Tensor, *, train: bool) -> Proposals:
        """The best anchors of each level, moved, limited to their picture, and freed of near-duplicates."""
        # No gradient goes through coordinates. Not by no_grad, whose switch an export cannot hold together with NMS.
        logits, deltas = logits.detach(), deltas.detach()
        pre = self.settings.pre_nms_train if train else self.settings.pre_nms_test
        post = self.settings.post_nms_train if train else self.settings.post_nms_test
        score, index = best_of_each_level(logits, grid.base, grid.count, grid.most, pre)
        shape = score.shape
        index = index.flatten(1)
        delta = deltas.gather(1, index.unsqueeze(-1).expand(-1, -1, 4))
        box = clip_boxes(decode(delta, anchors_at(grid, index), WEIGHTS), sizes)
        valid = (score > -torch.inf).flatten(1) & ((box[..., 2:] - box[..., :2]).amin(-1) >= LEAST_SIDE)
        score = score.flatten(1).sigmoid()
        # Levels do not compete: each level of each picture is a row of its own.
        row = (shape[0] * shape[1], shape[2])
        group = torch.zeros(row, dtype=torch.int64, device=box.device)
        kept, live = nms(
            box.view(*row, 4), score.view(row), group, valid.view(row), self.settings.nms_iou, min(post, row[1])
        )
        first = torch.arange(shape[1], device=box.device)[:, None] * shape[2]
        kept = (kept.view(*shape[:2], live.shape[1]) + first).flatten(1)
        live = live.view(*shape[:2], live.shape[1]).flatten(1)
        ranked = score.gather(1, kept).masked_fill(~live, -torch.inf)
        # A stable sort: equal scores stay in the order of their levels.
        order = ranked.sort(dim=1, descending=True, stable=True).indices[:, :post]
        live, kept = live.gather(1, order), kept.gather(1, order)
        if not train:
            # In training a region's place decides whether it is drawn: it must not hang on the batch's other pictures.
            live, kept = trim_tail(live, kept)
        scores = score.gather(1, kept).masked_fill(~live, 0.0)
        return Proposals(box.gather(1, kept.unsqueeze(-1).expand(-1, -1, 4)), live, scores)

    def sample(self, anchors: Tensor, batch: Batch, targets: Targets) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Anchors to train on: index (N, B) into A, valid, positive (N, B) and the object matched (N, B)."""
        s = self.settings
        matched, status = match(
            targets.boxes,
            targets.valid,
            anchors[None],
            high=s.positive_iou,
            low=s.negative_iou,
            best_of_each=True,
        )
        status = ignore_crowds(status, anchors[None], targets.boxes, targets.crowd)
        index, valid = sample(status, batch.keys, "rpn", s.batch, s.positive_fraction)
        return index, valid, (status.gather(1, index) == POSITIVE) & valid, matched.gather(1, index)

    def losses(
        self, anchors: Tensor, logits: Tensor, deltas: Tensor, batch: Batch, targets: Targets
    ) -> dict[str, Tensor]:
        """Equation 1: cross entropy of objectness, smooth L1 (beta 1/9) of deltas, both over all sampled anchors."""
        with torch.no_grad():
            index, valid, positive, matched = self.sample(anchors, batch, targets)
            gt_boxes = targets.boxes.gather(1, matched.unsqueeze(-1).expand(-1, -1, 4))
            gt_deltas = encode(gt_boxes, anchors[index], WEIGHTS)
        logit = logits.gather(1, index)
        delta = deltas.gather(1, index.unsqueeze(-1).expand(-1, -1, 4))
        objectness = F.binary_cross_entropy_with_logits(logit, positive.to(logit.dtype), reduction="none")
        regression = F.smooth_l1_loss(delta, gt_deltas, beta=1 / 9, reduction="none").sum(-1)
        # `where` and not a product: padding may hold anything, infinity too.
        zero = logit.new_zeros(())
        count = valid.sum()
        return {
            "loss_objectness": mean_loss(torch.where(valid, objectness, zero).sum(), count),
            "loss_rpn_box_reg": mean_loss(torch.where(positive, regression, zero).sum(), count),
        }


def every_anchor(grid: AnchorGrid, logits: Tensor) -> Tensor:
    """All anchors (A, 4) in pixels, in the order of logits (N, A)."""
    return anchors_at(grid, torch.arange(logits.shape[1], device=logits.device))
