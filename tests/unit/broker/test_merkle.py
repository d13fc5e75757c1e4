"""RFC 6962 hashing and proofs, against the RFC's definitions written out naively."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.broker.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_hash,
    verify_consistency,
    verify_inclusion,
)
from casemate.crypto.errors import SignatureInvalidError
from casemate.errors import UsageError

LEAVES = [leaf_hash(f"entry {i}".encode()) for i in range(40)]
ROOTS = [root_hash(LEAVES[:size]) for size in range(41)]


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def test_roots_are_those_of_the_definition() -> None:
    for size in range(41):
        assert ROOTS[size] == mth(LEAVES[:size])


def test_the_known_answers_of_rfc_6962_hold() -> None:
    # The empty tree, and the tree over one empty entry (RFC 6962 2.1: SHA-256 of nothing, and of one zero byte).
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"


def test_a_leaf_never_hashes_like_a_node() -> None:
    assert leaf_hash(LEAVES[0] + LEAVES[1]) != root_hash(LEAVES[:2])


def test_the_frontier_grows_to_the_same_roots() -> None:
    frontier = Frontier()
    for size, leaf in enumerate(LEAVES):
        assert (frontier.size, frontier.root()) == (size, ROOTS[size])
        frontier = frontier.append(leaf)
    assert len(frontier.roots) == bin(40).count("1")


def test_every_inclusion_proof_verifies_and_no_other_leaf_or_place_does() -> None:
    for size in range(1, 20):
        for index in range(size):
            proof = inclusion_proof(LEAVES[:size], index)
            verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])
            for other in range(size):
                if other != index:
                    with pytest.raises(SignatureInvalidError):
                        verify_inclusion(LEAVES[other], index, size, proof, ROOTS[size])
                    with pytest.raises(SignatureInvalidError):
                        verify_inclusion(LEAVES[index], other, size, proof, ROOTS[size])


def test_every_consistency_proof_verifies_and_binds_both_roots() -> None:
    for second in range(1, 20):
        for first in range(1, second + 1):
            proof = consistency_proof(LEAVES[:second], first)
            verify_consistency(first, ROOTS[first], second, ROOTS[second], proof)
            with pytest.raises(SignatureInvalidError):
                verify_consistency(first, b"\0" * 32, second, ROOTS[second], proof)
            with pytest.raises(SignatureInvalidError):
                verify_consistency(first, ROOTS[first], second, b"\0" * 32, proof)


def test_a_changed_old_entry_leaves_no_proof_that_verifies() -> None:
    forged = [*LEAVES[:3], leaf_hash(b"forged"), *LEAVES[4:13]]
    for first in range(4, 13):
        proof = consistency_proof(forged, first)
        with pytest.raises(SignatureInvalidError):
            verify_consistency(first, ROOTS[first], 13, root_hash(forged), proof)


@given(size=st.integers(1, 30), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_proof_with_a_flipped_bit_a_missing_or_an_extra_node_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(LEAVES[:size], index)
    bad = [[*proof, b"\0" * 32], [b"\0" * 32, *proof]]
    for place, node in enumerate(proof):
        bad.append([*proof[:place], bytes([node[0] ^ 1]) + node[1:], *proof[place + 1 :]])
        bad.append([*proof[:place], *proof[place + 1 :]])
    for other in bad:
        with pytest.raises(SignatureInvalidError):
            verify_inclusion(LEAVES[index], index, size, other, ROOTS[size])


def test_proofs_outside_the_log_are_usage_errors() -> None:
    for index in (-1, 5):
        with pytest.raises(UsageError):
            inclusion_proof(LEAVES[:5], index)
        with pytest.raises(SignatureInvalidError):
            verify_inclusion(LEAVES[0], index, 5, [], ROOTS[5])
    for first in (0, 6):
        with pytest.raises(UsageError):
            consistency_proof(LEAVES[:5], first)
    with pytest.raises(SignatureInvalidError):
        verify_consistency(6, ROOTS[6], 5, ROOTS[5], [])
    with pytest.raises(SignatureInvalidError):
        verify_consistency(5, ROOTS[5], 5, ROOTS[6], [])


def test_roots_of_growing_logs_all_differ() -> None:
    assert all(a != b for a, b in pairwise(ROOTS))
