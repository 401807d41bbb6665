"""MoCo v1 and v2: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning" (CVPR 2020), and Chen
et al., "Improved Baselines with Momentum Contrastive Learning" (2020).

A query must be told from K keys of other pictures, which wait in a queue, by being closest to the key of its own
picture (equation 1, InfoNCE). Keys come from a second encoder that follows the first slowly (equation 2).

N pictures of all ranks, n of this one, dim width of queries and keys, K keys in the queue, V keys of a picture: 1, or 2
where the loss is symmetric. Views are (n, 3, S, S), standardised.

v2 puts a hidden layer into the head; its blur and its cosine schedule are the recipe's. Batch norm sees groups of
`bn_group` pictures, as many as a GPU of the paper held; before the key encoder a keyed permutation deals the pictures
of all groups out anew (section 3.3, "Shuffling BN"), so that no key shares statistics with its query. One process with
G groups therefore computes what G processes do. Names of tensors are those of the authors' code.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracesight.models.encode import Made, agree, follow, gathered_rows, grouped, own_rows, width_of, without_head
from tracesight.ops.collectives import mean_loss
from tracesight.ops.precision import full_precision
from tracesight.ops.random import keyed_uniform


class MoCo(nn.Module):
    """Both encoders and the queue; `encoder_q` without its head is what is pretrained.

    encoder: makes an encoder without classifier (`build(name, 0)`). mlp: the head has a hidden layer (v2).
    symmetric: each view is query once, and key once; the loss is the sum. Raises ValueError for numbers that do not
    fit.
    """

    views = 2
    accumulates = True  # what the queries are compared with does not change within a step

    def __init__(
        self,
        encoder: Callable[[], nn.Module],
        *,
        dim: int = 128,
        queue: int = 65536,
        temperature: float = 0.2,
        mlp: bool = True,
        symmetric: bool = False,
        bn_group: int = 32,
    ) -> None:
        super().__init__()
        if bn_group < 2:
            raise ValueError(f"bn_group is {bn_group}: batch norm needs at least two pictures")
        self.temperature, self.symmetric, self.bn_group = temperature, symmetric, bn_group
        self.encoder_q = encoder()
        width = width_of(self.encoder_q)
        last = nn.Linear(width, dim)
        self.encoder_q.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), last) if mlp else last
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.queue: Tensor
        self.queue_ptr: Tensor
        self.register_buffer("queue", F.normalize(torch.randn(dim, queue), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.int64))

    def pretrained(self) -> dict[str, Tensor]:
        """The tensors of the encoder that is kept."""
        return without_head(self.encoder_q)

    def forward(self, first: Tensor, second: Tensor, keys: Tensor) -> Made:
        """Algorithm 1 up to the loss; nothing but batch norm's statistics changes.

        keys: (n, 2) int64, (seed, draw number) of each picture.
        """
        loss, q, k = self.contrast(first, second, keys)
        if not self.symmetric:
            return Made({"loss_contrast": loss}, q.detach(), k[:, None])
        other, _, k_other = self.contrast(second, first, keys)
        return Made({"loss_contrast": loss + other}, q.detach(), torch.stack((k, k_other), dim=1))

    def contrast(self, x_q: Tensor, x_k: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, queries and keys of views (n, 3, S, S)."""
        q = F.normalize(full_precision(grouped(self.encoder_q, x_q, self.bn_group)), dim=1)
        k = self.keys_of(x_k, keys)
        return info_nce(self.logits(q, k)), q, k

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        """(n, 1 + K): similarity to the picture's own key, then to those in the queue, over the temperature."""
        own = (q * k).sum(dim=1, keepdim=True)
        return torch.cat((own, q @ self.queue), dim=1) / self.temperature

    @torch.no_grad()
    def keys_of(self, images: Tensor, keys: Tensor) -> Tensor:
        """Keys (n, dim) of length 1, computed in other groups than the queries."""
        order = torch.argsort(keyed_uniform(gathered_rows(keys), "shuffle", 1)[:, 0], stable=True)
        mixed = own_rows(gathered_rows(images)[order])
        made = F.normalize(full_precision(grouped(self.encoder_k, mixed, self.bn_group)), dim=1)
        return own_rows(gathered_rows(made)[torch.argsort(order)])

    @torch.no_grad()
    def advance(self, k: Tensor, keys: Tensor, momentum: float) -> None:
        """After the update: the key encoder follows, and the keys of the step take the place of the oldest.

        k: (n, V, dim); keys: (n, 2). They are queued by draw number, whatever rank or part they come from.
        """
        follow(self.encoder_k, self.encoder_q, momentum)
        agree(self.encoder_q, self.encoder_k)
        order = torch.argsort(gathered_rows(keys)[:, 1], stable=True)
        new = gathered_rows(k)[order].transpose(0, 1).flatten(0, 1)
        places = (self.queue_ptr + torch.arange(new.shape[0], device=new.device)) % self.queue.shape[1]
        self.queue.index_copy_(1, places, new.T.to(self.queue.dtype))
        self.queue_ptr.add_(new.shape[0]).remainder_(self.queue.shape[1])


def info_nce(logits: Tensor) -> Tensor:
    """Equation 1: cross-entropy of (n, 1 + K) where the first is the right answer, its mean over all ranks."""
    total = (torch.logsumexp(logits, dim=1) - logits[:, 0]).sum()
    return mean_loss(total, torch.full_like(total, logits.shape[0]))
