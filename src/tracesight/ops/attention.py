"""Scaled dot-product attention: Vaswani et al., "Attention Is All You Need" (2017), equation 1.

N pictures, h heads, L tokens, d width of a head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

FORMS = ("plain", "fused")


def attention(q: Tensor, k: Tensor, v: Tensor, form: str = "fused") -> Tensor:
    """softmax(q kᵀ / √d) v, of q, k and v (N, h, L, d); the result is as large as q.

    form: "plain" is two products and a softmax, "fused" torch's `scaled_dot_product_attention`, which holds no L × L
    table; they are equal to rounding. "fused" was the faster one for every length measured on a CPU
    (`benchmarks/attention.py`, docs/papers/vit.md); GPUs have not been measured. Raises ValueError for another one.
    """
    if form == "fused":
        return F.scaled_dot_product_attention(q, k, v)
    if form != "plain":
        raise ValueError(f"form is {form!r}; it can be " + ", ".join(map(repr, FORMS)))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1) @ v
