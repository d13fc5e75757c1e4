"""The audit log: any edit, deletion, insertion, reordering, fork and roll-back shows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.broker.support import START

from casemate.broker import audit, merkle
from casemate.broker.errors import AuditInconsistentError
from casemate.crypto.canonical import canonical_json
from casemate.crypto.jose import KeyPair

KEY = KeyPair.generate()
BODIES = [audit.Entry("release", "accepted", ("hospital",)).body(i, START) for i in range(9)]
LEAVES = [merkle.leaf_hash(body) for body in BODIES]


def checkpoint(leaves: list[bytes], key: KeyPair = KEY) -> str:
    return audit.sign_checkpoint(key, size=len(leaves), root=merkle.root_hash(leaves), now=START).jws


LATEST, EARLIER = checkpoint(LEAVES), checkpoint(LEAVES[:5])


def test_a_whole_log_verifies_against_what_was_seen_before() -> None:
    assert audit.verify(LEAVES, [LATEST], KEY.public, [EARLIER]).size == 9


@pytest.mark.parametrize("place", range(9))
def test_an_edited_entry_shows(place: int) -> None:
    value = json.loads(BODIES[place])
    value["outcome"] = "refused"
    forged = canonical_json(value)
    with pytest.raises(AuditInconsistentError, match="edited"):
        audit.open_entry(forged, LEAVES[place], place)
    leaves = [*LEAVES[:place], merkle.leaf_hash(forged), *LEAVES[place + 1 :]]
    with pytest.raises(AuditInconsistentError):
        audit.verify(leaves, [LATEST], KEY.public)


@pytest.mark.parametrize("place", range(9))
def test_a_deleted_or_an_inserted_entry_shows(place: int) -> None:
    for leaves in (
        [*LEAVES[:place], *LEAVES[place + 1 :]],
        [*LEAVES[:place], merkle.leaf_hash(b"inserted"), *LEAVES[place:]],
        [*LEAVES[:place], LEAVES[place], *LEAVES[place:]],
    ):
        with pytest.raises(AuditInconsistentError):
            audit.verify(leaves, [LATEST], KEY.public)


@given(st.permutations(range(9)))
@settings(max_examples=50, deadline=None)
def test_any_reordering_shows(order: list[int]) -> None:
    if order != list(range(9)):
        with pytest.raises(AuditInconsistentError):
            audit.verify([LEAVES[i] for i in order], [LATEST], KEY.public)


def test_an_entry_moved_with_its_hash_shows_by_its_own_index() -> None:
    with pytest.raises(AuditInconsistentError, match="says it is entry 3"):
        audit.open_entry(BODIES[3], LEAVES[3], 4)


def test_an_old_copy_is_only_seen_through_by_a_kept_checkpoint() -> None:
    assert audit.verify(LEAVES[:5], [EARLIER], KEY.public).size == 5
    with pytest.raises(AuditInconsistentError, match="old database"):
        audit.verify(LEAVES[:5], [EARLIER], KEY.public, [LATEST])


def test_another_branch_of_the_log_shows() -> None:
    fork = [*LEAVES[:4], *(merkle.leaf_hash(str(i).encode()) for i in range(6))]
    with pytest.raises(AuditInconsistentError, match="another branch"):
        audit.verify(fork, [checkpoint(fork)], KEY.public, [EARLIER])


def test_entries_that_no_checkpoint_covers_show() -> None:
    with pytest.raises(AuditInconsistentError, match="without the broker"):
        audit.verify(LEAVES, [EARLIER], KEY.public)
    with pytest.raises(AuditInconsistentError):
        audit.verify(LEAVES, [], KEY.public)


def test_a_checkpoint_of_another_key_or_form_is_none() -> None:
    for jws in (
        checkpoint(LEAVES, KeyPair.generate()),
        KEY.sign({"version": 1, "size": 9, "root": "00" * 32, "time": "x"}, typ="other"),
        KEY.sign({"version": 1, "size": -1, "root": "00" * 32, "time": "x"}, typ=audit.CHECKPOINT_TYPE),
        KEY.sign({"version": 1, "size": 9, "root": "00", "time": "x"}, typ=audit.CHECKPOINT_TYPE),
        KEY.sign([], typ=audit.CHECKPOINT_TYPE),
        "",
    ):
        with pytest.raises(AuditInconsistentError):
            audit.verify(LEAVES, [jws], KEY.public)


def test_the_same_entry_twice_never_hashes_the_same() -> None:
    entry = audit.Entry("release", "accepted")
    assert entry.body(0, START) != entry.body(0, START)
