"""Intel collateral: what the maker says about a family of platforms, and a store of it. In memory only.

The JSON shape is that of DCAP's ``QuoteCollateralV3``: PEM chains, hex CRLs and signatures, exact signed JSON texts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from cryptography import x509
from cryptography.x509.oid import NameOID
from dcap_qvl import QuoteCollateralV3

from casemate.attestation.platforms.intel.errors import (
    CollateralMalformedError,
    QeIdentityMalformedError,
    QuoteMalformedError,
    TcbInfoMalformedError,
)
from casemate.attestation.platforms.intel.quote import pem_certificates

__all__ = ["Collateral", "CollateralSource", "CollateralStore", "Piece", "SingleCollateral", "parse_collateral"]

MAX_COLLATERAL_SIZE = 16 * 1024 * 1024  # characters; CRLs grow


@dataclass(frozen=True)
class Piece:
    """When one piece of collateral was issued and when its next update is due."""

    name: str
    issued: datetime
    expires: datetime


@dataclass(frozen=True)
class Collateral:
    """One parsed set of collateral. Nothing in it is verified until a quote is verified with it."""

    tee: str  # sgx | tdx
    fmspc: str  # hex, lower case
    ca: str  # platform | processor
    root: bytes  # DER of the root its TCB info's issuer chain ends in
    pieces: tuple[Piece, ...]
    tcb_info: dict[str, Any]
    qe_identity: dict[str, Any]
    native: Any  # dcap_qvl.QuoteCollateralV3
    document: dict[str, Any]

    @property
    def issued(self) -> datetime:
        """When the oldest piece was issued."""
        return min(piece.issued for piece in self.pieces)

    @property
    def expires(self) -> datetime:
        """When the first piece expires."""
        return min(piece.expires for piece in self.pieces)

    def current(self, now: datetime) -> bool:
        return all(piece.issued <= now <= piece.expires for piece in self.pieces)

    def chain(self, name: str) -> list[x509.Certificate]:
        """The certificates of a PEM member, leaf first."""
        return [x509.load_der_x509_certificate(der) for der in pem_certificates(self.document[name].encode())]

    def crl(self, name: str) -> x509.CertificateRevocationList:
        return x509.load_der_x509_crl(bytes.fromhex(self.document[name]))


def parse_collateral(text: str) -> Collateral:
    """Read one collateral JSON document; raises a ``CollateralMalformedError`` naming the member."""
    if len(text) > MAX_COLLATERAL_SIZE:
        raise CollateralMalformedError(f"collateral: got {len(text)} characters, need at most {MAX_COLLATERAL_SIZE}")
    try:
        document = json.loads(text)
        native = QuoteCollateralV3.from_json(text)
    except (ValueError, RecursionError) as exc:
        raise CollateralMalformedError(f"collateral: not of the form it must have: {exc}") from exc
    if not isinstance(document, dict):
        raise CollateralMalformedError("collateral: not a JSON object")
    tcb_info = _signed_json(document, "tcb_info", TcbInfoMalformedError)
    qe_identity = _signed_json(document, "qe_identity", QeIdentityMalformedError)
    try:
        root_crl = x509.load_der_x509_crl(bytes.fromhex(document["root_ca_crl"]))
        pck_crl = x509.load_der_x509_crl(bytes.fromhex(document["pck_crl"]))
        pieces = (
            _json_piece("TCB info", tcb_info),
            _json_piece("QE identity", qe_identity),
            _crl_piece("root CA CRL", root_crl),
            _crl_piece("PCK CRL", pck_crl),
        )
        issuer = pck_crl.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return Collateral(
            tee=str(tcb_info["id"]).lower(),
            fmspc=bytes.fromhex(tcb_info["fmspc"]).hex(),
            ca="processor" if "Processor" in str(issuer) else "platform",
            root=pem_certificates(document["tcb_info_issuer_chain"].encode())[-1],
            pieces=pieces,
            tcb_info=tcb_info,
            qe_identity=qe_identity,
            native=native,
            document=document,
        )
    except (
        KeyError,
        IndexError,
        ValueError,
        TypeError,
        AttributeError,
        x509.InvalidVersion,
        QuoteMalformedError,
    ) as exc:
        raise CollateralMalformedError(f"collateral: a member is missing or malformed ({exc})") from exc


def _signed_json(document: dict[str, Any], name: str, error: type[CollateralMalformedError]) -> dict[str, Any]:
    try:
        value = json.loads(document[name])
    except (KeyError, TypeError, ValueError, RecursionError) as exc:
        raise error(f"collateral: {name} is not JSON text") from exc
    if not isinstance(value, dict):
        raise error(f"collateral: {name} is not a JSON object")
    return value


def _json_piece(name: str, value: dict[str, Any]) -> Piece:
    return Piece(name, _moment(value["issueDate"]), _moment(value["nextUpdate"]))


def _crl_piece(name: str, crl: x509.CertificateRevocationList) -> Piece:
    if crl.next_update_utc is None:
        raise ValueError(f"{name} has no next update")
    return Piece(name, crl.last_update_utc, crl.next_update_utc)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


class CollateralSource(Protocol):
    """Where a verifier finds collateral; no network or disk."""

    def find(self, *, root: bytes, tee: str, fmspc: str, ca: str, now: datetime) -> Collateral | None: ...


class SingleCollateral:
    """One set of collateral for everything: what was given explicitly is used, and refused when it does not fit."""

    def __init__(self, collateral: Collateral) -> None:
        self._collateral = collateral

    def find(self, *, root: bytes, tee: str, fmspc: str, ca: str, now: datetime) -> Collateral | None:
        return self._collateral


class CollateralStore:
    """Collateral by root, TEE, FMSPC and certifying authority, so that one maker's never judges another's platform."""

    def __init__(self, collateral: Iterable[Collateral] = ()) -> None:
        self._sets: dict[tuple[str, str, str, str], list[Collateral]] = {}
        for one in collateral:
            self.add(one)

    def add(self, collateral: Collateral) -> None:
        """Keep ``collateral`` beside what is there for the same platforms."""
        key = (_fingerprint(collateral.root), collateral.tee, collateral.fmspc, collateral.ca)
        self._sets.setdefault(key, []).append(collateral)

    def find(self, *, root: bytes, tee: str, fmspc: str, ca: str, now: datetime) -> Collateral | None:
        """The newest set that is current at ``now``, else the newest one, else ``None``."""
        known = self._sets.get((_fingerprint(root), tee, fmspc.lower(), ca), [])
        return max(known, key=lambda one: (one.current(now), one.issued), default=None)

    def __iter__(self) -> Iterator[Collateral]:
        for known in self._sets.values():
            yield from known


def _fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()
