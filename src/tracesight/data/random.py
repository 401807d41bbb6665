"""Random numbers that belong to a sample and a purpose, not to a worker.

Philox (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) as numpy has it: a counter-based
generator, so that any draw can be had without the ones before it.
"""

from __future__ import annotations

import hashlib

import numpy as np

_WORD = (1 << 64) - 1


def generator(seed: int, draw: int, purpose: str) -> np.random.Generator:
    """The generator of one draw: the same three arguments give the same numbers on every machine.

    seed: any integer. draw: step × batch size + position in the batch, or an epoch, 0 or more. purpose: what the
    numbers are for; different purposes give unrelated numbers.
    """
    word = int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")
    key = np.array([seed & _WORD, word], np.uint64)
    # Philox counts up the low words: the draw sits above 2^128 of them, so draws never overlap.
    counter = np.array([0, 0, draw & _WORD, 0], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def order(seed: int, epoch: int, length: int) -> np.ndarray:
    """The shuffled positions (length,) int64 of one epoch: the ranks of keyed uniform numbers."""
    return np.argsort(generator(seed, epoch, "shuffle").random(length), kind="stable")
