"""MoCo v3: Chen, Xie and He, "An Empirical Study of Training Self-Supervised Vision Transformers" (ICCV 2021),
section 3 and algorithm 1 on residual networks, sections 4 and 5 on vision transformers.

No queue: a query must be told from the keys of all other pictures of the batch. The query goes through a prediction
head besides, which the key encoder has not. Of a vision transformer the class token is compared, and the projection of
its patches stays as it was drawn, which keeps training stable (section 4.2, "A Trick for Improving Stability").

N pictures of all ranks, n of this one, dim width of queries and keys. Views are (n, C, H, W), standardised. Batch norm,
that of the heads too, is over the whole batch, on all ranks. Heads are those of the authors' code: for ResNets a
projection and a prediction of two layers, for ViTs a projection of three and a prediction of two; batch norm after all
of them, after the last one without scale and shift, and none after the prediction of ResNets. Names of tensors are
theirs, and so are a ViT's random weights: Xavier's rule, for queries, keys and values each by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracesight.models.encode import Made, Norm1d, follow, gathered_rows, own_rows, width_of, without_head
from tracesight.models.vit import Attention, ViT, xavier
from tracesight.ops.collectives import mean_loss
from tracesight.ops.precision import full_precision


class MoCoV3(nn.Module):
    """Both encoders and the prediction head; `base_encoder` without its head is what is pretrained.

    encoder: makes an encoder without classifier (`build(name, 0)`). hidden: width inside the heads.
    frozen_patch_projection: of a ViT; None: frozen, as the paper has it. Raises ValueError: a residual network has none
    to freeze, or a ViT is not classified by its token, or leaves residuals out.
    """

    views = 2
    accumulates = False  # the negatives are the other pictures of the batch: parts of it are another loss

    def __init__(
        self,
        encoder: Callable[[], nn.Module],
        *,
        dim: int = 256,
        hidden: int = 4096,
        temperature: float = 1.0,
        frozen_patch_projection: bool | None = None,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.base_encoder = encoder()
        width = width_of(self.base_encoder)
        transformer = isinstance(self.base_encoder, ViT)
        if isinstance(self.base_encoder, ViT):
            begin(self.base_encoder)
            self.base_encoder.patch_embed.requires_grad_(frozen_patch_projection is False)
            self.base_encoder.head = head(width, hidden, dim, layers=3)
        elif frozen_patch_projection:
            raise ValueError("frozen_patch_projection is for vision transformers: this network has no patches")
        else:
            self.base_encoder.fc = head(width, hidden, dim, layers=2)
        self.momentum_encoder = copy.deepcopy(self.base_encoder).requires_grad_(False)
        self.predictor = head(dim, hidden, dim, layers=2, last_norm=transformer)

    def pretrained(self) -> dict[str, Tensor]:
        """The tensors of the encoder that is kept."""
        return without_head(self.base_encoder)

    def forward(self, first: Tensor, second: Tensor, keys: Tensor) -> Made:
        """Algorithm 1 up to the loss; nothing but batch norm's statistics changes. keys: not needed, (n, 2)."""
        q1, q2 = (full_precision(self.predictor(self.base_encoder(x))) for x in (first, second))
        with torch.no_grad():
            k1, k2 = (F.normalize(full_precision(self.momentum_encoder(x)), dim=1) for x in (first, second))
        q1, q2 = F.normalize(q1, dim=1), F.normalize(q2, dim=1)
        loss = self.contrast(q1, k2) + self.contrast(q2, k1)
        return Made({"loss_contrast": loss}, q1.detach(), torch.stack((k1, k2), dim=1))

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        """(n, N): similarity of each query to the keys of all ranks, over the temperature."""
        return q @ gathered_rows(k).T / self.temperature

    def contrast(self, q: Tensor, k: Tensor) -> Tensor:
        """Algorithm 1's `ctr`: cross-entropy times 2 × temperature, its mean over all ranks."""
        logits = self.logits(q, k)
        own = own_rows(torch.arange(logits.shape[1], device=q.device))
        total = F.cross_entropy(logits, own, reduction="sum") * (2 * self.temperature)
        return mean_loss(total, torch.full_like(total, q.shape[0]))

    @torch.no_grad()
    def advance(self, k: Tensor, keys: Tensor, momentum: float) -> None:
        """After the update the key encoder follows."""
        follow(self.momentum_encoder, self.base_encoder, momentum)


@torch.no_grad()
def begin(encoder: ViT) -> None:
    """Random weights of a ViT where the authors' differ from MAE's. Raises ValueError: it is built for another use."""
    if encoder.pool != "token" or encoder.drop_path:
        raise ValueError("it compares class tokens and leaves nothing out: leave pool and drop_path as they are")
    for module in encoder.modules():
        if isinstance(module, Attention) and not module.qkv.weight.is_meta:
            for part in module.qkv.weight.chunk(3):
                xavier(part)
    nn.init.normal_(encoder.cls_token, std=1e-6)


def head(width: int, hidden: int, dim: int, *, layers: int, last_norm: bool = True) -> nn.Sequential:
    """(N, width) → (N, dim), batch norm and ReLU between the layers."""
    widths, parts = [width, *[hidden] * (layers - 1), dim], []
    for number, (inward, outward) in enumerate(pairwise(widths), start=1):
        parts.append(nn.Linear(inward, outward, bias=False))
        if number < layers:
            parts += [Norm1d(outward), nn.ReLU(inplace=True)]
        elif last_norm:
            parts.append(Norm1d(outward, affine=False))
    return nn.Sequential(*parts)
