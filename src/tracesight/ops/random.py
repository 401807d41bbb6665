"""Random numbers that belong to a sample and a purpose, on any device.

Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011, section 3.3), a counter-based
generator: no state, so results depend neither on workers, ranks nor restarts.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counters: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Four 32-bit words from a 128-bit counter and a 64-bit key, all held in int64 tensors that broadcast."""
    c0, c1, c2, c3 = counters
    k0, k1 = key
    for _ in range(10):
        # The product may overflow int64; its 64 bits are right all the same, and the mask removes the sign.
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = ((second >> 32) & _MASK) ^ c1 ^ k0, ((first >> 32) & _MASK) ^ c3 ^ k1
        c1, c3 = second & _MASK, first & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return [c0, c1, c2, c3]


def keyed_uniform(keys: Tensor, purpose: str, count: int) -> Tensor:
    """Uniform numbers (N, count) in [0, 1), float32.

    keys: (N, 2) int64, the seed and the draw number (step × batch size + position) of each picture.
    purpose: what the numbers are for; another purpose gives unrelated numbers.
    """
    seed, draw = keys[:, :1], keys[:, 1:]
    # The mask changes no number. It keeps the compiler from taking the first product for arithmetic on indices, which
    # it does in 32 bits on GPUs, and then refuses the multiplier.
    block = torch.arange((count + 3) // 4, device=keys.device).unsqueeze(0) & _MASK
    counters = (block, draw & _MASK, (draw >> 32) & _MASK, torch.full_like(draw, _number(purpose)))
    words = philox(counters, (seed & _MASK, (seed >> 32) & _MASK))
    words = torch.stack(torch.broadcast_tensors(*words), dim=-1).flatten(1)[:, :count]
    # 24 bits fill a float32's mantissa: 1.0 is never reached.
    return (words >> 8).to(torch.float32) * 2.0**-24


@torch.compiler.assume_constant_result
def _number(purpose: str) -> int:
    """32 bits of a purpose's name; a constant to the compiler, which cannot look into zlib."""
    return zlib.crc32(purpose.encode())
