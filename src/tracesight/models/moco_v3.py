"""MoCo v3 on residual networks: Chen, Xie and He, "An Empirical Study of Training Self-Supervised Vision Transformers"
(ICCV 2021), section 3 and algorithm 1.

No queue: a query must be told from the keys of all other pictures of the batch. The query goes through a prediction
head besides, which the key encoder has not.

N pictures of all ranks, n of this one, dim width of queries and keys. Views are (n, 3, S, S), standardised. Batch norm,
that of the heads too, is over the whole batch, on all ranks. Heads are those of the authors' code for ResNets: a
projection of two layers, batch norm after both, the last one without scale and shift; a prediction of two layers, batch
norm after the first. Names of tensors are theirs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracesight.models.encode import Made, Norm1d, follow, gathered_rows, own_rows, width_of, without_head
from tracesight.ops.collectives import mean_loss
from tracesight.ops.precision import full_precision


class MoCoV3(nn.Module):
    """Both encoders and the prediction head; `base_encoder` without its head is what is pretrained.

    encoder: makes an encoder without classifier (`build(name, 0)`). hidden: width inside the heads.
    """

    views = 2
    accumulates = False  # the negatives are the other pictures of the batch: parts of it are another loss

    def __init__(
        self, encoder: Callable[[], nn.Module], *, dim: int = 256, hidden: int = 4096, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.base_encoder = encoder()
        self.base_encoder.fc = head(width_of(self.base_encoder), hidden, dim, last_norm=True)
        self.momentum_encoder = copy.deepcopy(self.base_encoder).requires_grad_(False)
        self.predictor = head(dim, hidden, dim, last_norm=False)

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


def head(width: int, hidden: int, dim: int, *, last_norm: bool) -> nn.Sequential:
    """Two layers (N, width) → (N, dim)."""
    layers: list[nn.Module] = [
        nn.Linear(width, hidden, bias=False), Norm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dim, bias=False)
    ]  # fmt: skip
    return nn.Sequential(*layers, *([Norm1d(dim, affine=False)] if last_norm else []))
