"""Merkle trees, as in RFC 6962, section 2.1, over sets whose order means nothing.

A leaf is SHA-256(0x00 ‖ data), a node SHA-256(0x01 ‖ left ‖ right), so that no leaf can be passed off as a node.
Leaves stand in ascending order of their hashes; the same leaf may stand there several times. A list of n > 1 leaves is
divided after the largest power of two below n. The root of nothing is SHA-256 of nothing.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Proof:
    """That a leaf is in a tree: its position among the sorted leaves, how many there are, and its path to the root.

    path: 64 hex digits each, the hash of the neighbour on every level from the leaf upwards.
    """

    index: int
    size: int
    path: tuple[str, ...]


def leaf_hash(data: bytes) -> bytes:
    """The 32 bytes that stand for a leaf."""
    return hashlib.sha256(b"\0" + data).digest()


def leaf_hashes(data: Iterable[bytes]) -> list[bytes]:
    """The same of many, in two thirds of the time."""
    sha256 = hashlib.sha256
    return [sha256(b"\0" + one).digest() for one in data]


def root(leaves: Iterable[bytes]) -> str:
    """64 hex digits: the root over leaf hashes, in whatever order they come."""
    level = sorted(leaves)
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        level = _above(level)
    return level[0].hex()


def prove(leaves: Iterable[bytes], leaf: bytes) -> Proof:
    """The way from the hash of a leaf to the root (RFC 6962, section 2.1.1). Raises KeyError: the leaf is not there."""
    level = sorted(leaves)
    index = position = bisect_left(level, leaf)
    size = len(level)
    if index == size or level[index] != leaf:
        raise KeyError(leaf.hex())
    path = []
    while len(level) > 1:
        neighbour = position ^ 1
        if neighbour < len(level):  # the last of an odd number goes up as it is
            path.append(level[neighbour].hex())
        level, position = _above(level), position >> 1
    return Proof(index, size, tuple(path))


def holds(proof: Proof, leaf: bytes, root: str) -> bool:
    """Whether the proof leads from the hash of a leaf to this root (RFC 9162, section 2.1.3.2)."""
    if not 0 <= proof.index < proof.size:
        return False
    position, last, found = proof.index, proof.size - 1, leaf
    try:
        steps = [bytes.fromhex(step) for step in proof.path]
    except ValueError:
        return False
    for step in steps:
        if last == 0 or len(step) != len(leaf):
            return False
        if position & 1 or position == last:
            found = _node(step, found)
            while not position & 1 and position:  # levels on which it had no neighbour
                position, last = position >> 1, last >> 1
        else:
            found = _node(found, step)
        position, last = position >> 1, last >> 1
    return last == 0 and found.hex() == root


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def _above(level: list[bytes]) -> list[bytes]:
    """The next level: pairs become nodes, and the last of an odd number goes up as it is."""
    sha256 = hashlib.sha256  # and no call of `_node`: of a large set there are a million
    nodes = [sha256(b"\1" + left + right).digest() for left, right in zip(level[::2], level[1::2])]
    return nodes if len(level) % 2 == 0 else [*nodes, level[-1]]
