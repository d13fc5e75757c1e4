"""Merkle tree hashing and proofs as RFC 6962 section 2.1 defines them (SHA-256). No I/O.

The verifying functions need nothing but this module, so that an auditor can use them on what a broker sent.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from casemate.crypto.errors import SignatureInvalidError
from casemate.errors import UsageError

__all__ = [
    "EMPTY_ROOT",
    "Frontier",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "root_hash",
    "verify_consistency",
    "verify_inclusion",
]

EMPTY_ROOT = hashlib.sha256().digest()


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two smaller than ``size`` (at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)


@dataclass(frozen=True)
class Frontier:
    """The roots of the complete subtrees of a log, largest first: all that appending and the root need."""

    size: int = 0
    roots: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> Frontier:
        """The frontier after one more leaf hash."""
        roots = [*self.roots, leaf]
        size = self.size
        while size & 1:  # two subtrees of one size merge
            right = roots.pop()
            roots.append(_node(roots.pop(), right))
            size >>= 1
        return Frontier(self.size + 1, tuple(roots))

    def root(self) -> bytes:
        if not self.roots:
            return EMPTY_ROOT
        root = self.roots[-1]
        for left in reversed(self.roots[:-1]):
            root = _node(left, root)
        return root


def root_hash(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes; ``EMPTY_ROOT`` when there are none."""
    frontier = Frontier()
    for leaf in leaves:
        frontier = frontier.append(leaf)
    return frontier.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of the leaf at ``index`` (RFC 6962 2.1.1), nearest sibling first."""
    if not 0 <= index < len(leaves):
        raise UsageError(f"audit path: index {index} is not within {len(leaves)} entries")
    if len(leaves) == 1:
        return []
    middle = _split(len(leaves))
    if index < middle:
        return [*inclusion_proof(leaves[:middle], index), root_hash(leaves[middle:])]
    return [*inclusion_proof(leaves[middle:], index - middle), root_hash(leaves[:middle])]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that ``leaf`` is entry ``index`` of the log of ``size`` entries with this root.

    Raises ``SignatureInvalidError``. RFC 9162 section 2.1.3.2."""
    if not 0 <= index < size:
        raise SignatureInvalidError(f"inclusion proof: index {index} is not within {size} entries")
    here, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise SignatureInvalidError("inclusion proof: too long")
        if here & 1 or here == last:
            computed = _node(sibling, computed)
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        else:
            computed = _node(computed, sibling)
        here, last = here >> 1, last >> 1
    if last or not hmac.compare_digest(computed, root):
        raise SignatureInvalidError(f"inclusion proof: entry {index} is not in the log of size {size} with this root")


def consistency_proof(leaves: Sequence[bytes], first: int) -> list[bytes]:
    """Proof that the tree over ``leaves`` continues the tree over its first ``first`` leaves (RFC 6962 2.1.2)."""
    if not 0 < first <= len(leaves):
        raise UsageError(f"consistency proof: first size {first} is not within 1 to {len(leaves)}")
    return _subproof(leaves, first, complete=True)


def _subproof(leaves: Sequence[bytes], first: int, *, complete: bool) -> list[bytes]:
    if first == len(leaves):
        return [] if complete else [root_hash(leaves)]
    middle = _split(len(leaves))
    if first <= middle:
        return [*_subproof(leaves[:middle], first, complete=complete), root_hash(leaves[middle:])]
    return [*_subproof(leaves[middle:], first - middle, complete=False), root_hash(leaves[:middle])]


def verify_consistency(first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the log of ``second`` entries continues the log of ``first`` entries, nothing changed.

    Raises ``SignatureInvalidError``. RFC 9162 section 2.1.4.2."""
    if not 0 < first <= second:
        raise SignatureInvalidError(f"consistency proof: a log of {second} entries cannot continue one of {first}")
    if first == second:
        if proof or not hmac.compare_digest(first_root, second_root):
            raise SignatureInvalidError(f"consistency proof: two different logs of size {first}")
        return
    path = list(proof)
    if first & (first - 1) == 0:  # a complete subtree is its own first node
        path.insert(0, first_root)
    if not path:
        raise SignatureInvalidError("consistency proof: empty")
    here, last = first - 1, second - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    old = new = path[0]
    for node in path[1:]:
        if last == 0:
            raise SignatureInvalidError("consistency proof: too long")
        if here & 1 or here == last:
            old, new = _node(node, old), _node(node, new)
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        else:
            new = _node(new, node)
        here, last = here >> 1, last >> 1
    if last or not (hmac.compare_digest(old, first_root) and hmac.compare_digest(new, second_root)):
        raise SignatureInvalidError(
            f"consistency proof: the log of size {second} does not continue that of size {first}"
        )
