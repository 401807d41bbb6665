"""Merkle trees as RFC 6962 has them, and the proofs that lead to their roots."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracesight.lineage.merkle import holds, leaf_hash, prove, root


def recursive(hashes: list[bytes]) -> bytes:
    """The definition, word for word, over hashes that are sorted already."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while 2 * k < len(hashes):
        k *= 2
    return hashlib.sha256(b"\1" + recursive(hashes[:k]) + recursive(hashes[k:])).digest()


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(b"%d" % number) for number in range(count)]


def test_roots_of_none_one_and_two() -> None:
    assert root([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    # The hash of an empty leaf, from the test vectors of Certificate Transparency.
    assert root([leaf_hash(b"")]) == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    low, high = sorted(leaves(2))
    assert root([high, low]) == hashlib.sha256(b"\1" + low + high).hexdigest()


@pytest.mark.parametrize("count", [*range(18), 31, 32, 33, 100])
def test_roots_are_those_of_the_definition_in_any_order(count: int) -> None:
    hashes = leaves(count)
    assert root(hashes) == root(hashes[::-1]) == recursive(sorted(hashes)).hex()


def test_copies_count() -> None:
    once = leaves(3)
    assert root(once) != root([*once, once[0]])


@given(st.integers(1, 70), st.data())
def test_proofs_hold_for_their_leaf_and_root_alone(count: int, data: st.DataObject) -> None:
    hashes = leaves(count)
    leaf = data.draw(st.sampled_from(hashes))
    top, proof = root(hashes), prove(hashes, leaf)
    assert proof.size == count
    assert holds(proof, leaf, top)
    assert not holds(proof, leaf_hash(b"another"), top)
    assert not holds(proof, leaf, root([*hashes, leaf_hash(b"more")]))
    assert not holds(replace(proof, path=(*proof.path, top)), leaf, top)
    if proof.path:
        at = data.draw(st.integers(0, len(proof.path) - 1))
        step = bytearray.fromhex(proof.path[at])
        step[data.draw(st.integers(0, 31))] ^= 1
        changed = (*proof.path[:at], bytes(step).hex(), *proof.path[at + 1 :])
        assert not holds(replace(proof, path=changed), leaf, top)
        assert not holds(replace(proof, path=proof.path[:-1]), leaf, top)


def test_what_is_not_there_has_no_proof_and_nonsense_does_not_hold() -> None:
    hashes = leaves(5)
    with pytest.raises(KeyError):
        prove(hashes, leaf_hash(b"another"))
    proof = prove(hashes, hashes[0])
    for wrong in (replace(proof, path=("zz",)), replace(proof, index=-1), replace(proof, size=0)):
        assert not holds(wrong, hashes[0], root(hashes))
