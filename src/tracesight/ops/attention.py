"""Scaled dot-product attention: Vaswani et al., "Attention Is All You Need" (2017), equation 1.

N pictures, h heads, L tokens, d width of a head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

FORMS = ("plain", "fused")


def attention(q: Tensor, k: Tensor, v: Tensor, form: str | None = None) -> Tensor:
    """softmax(q kᵀ / √d) v, of q, k and v (N, h, L, d); the result is as large as q.

    form: "plain" is two products and a softmax, "fused" torch's `scaled_dot_product_attention`, which holds no L × L
    table; they are equal to rounding. None is `attention_form`'s. Raises ValueError for another one.
    """
    form = attention_form(q) if form is None else form
    if form == "fused":
        return F.scaled_dot_product_attention(q, k, v)
    if form != "plain":
        raise ValueError(f"form is {form!r}; it can be " + ", ".join(map(repr, FORMS)))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1) @ v


def attention_form(q: Tensor) -> str:
    """The form for queries (N, h, L, d). `benchmarks/attention.py` compares both; not measured yet, "fused"."""
    return "fused"
