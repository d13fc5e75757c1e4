"""Keep a SIMULATED maker on disk: made on the first start, its collateral renewed when it nears its end.

``root_ca.der`` and ``collateral*.json`` are for verifiers; ``private/`` (0700) holds the keys. The root never changes.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from casemate.attestation.platforms.simulator.pki import Authority, PlatformIdentity, SimulatedPki
from casemate.errors import FailedError
from casemate.files import write_whole

__all__ = ["COLLATERAL_FILES", "ROOT_FILE", "load_or_create"]

ROOT_FILE = "root_ca.der"
COLLATERAL_FILES = {"tdx": "collateral.json", "sgx": "collateral-sgx.json"}
_RENEW_BEFORE = timedelta(days=10)
_AUTHORITIES = ("root", "pck_ca", "tcb_signer", "pck")


def load_or_create(directory: Path, now: datetime) -> SimulatedPki:
    """The maker that lives in ``directory``, with collateral good for ten days at least; raises ``FailedError``."""
    private = directory / "private"
    try:
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The platform's identity is written last: without it, a first start was cut short and is made good here.
        if not (private / "platform.json").exists():
            _store(directory, SimulatedPki.create(now))
        pki = _load(private)
        _renew(directory, pki, now)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise FailedError(f"SIMULATED TEE host: its state in {directory} is not usable ({exc})") from exc
    return pki


def _store(directory: Path, pki: SimulatedPki) -> None:
    private = directory / "private"
    for name in _AUTHORITIES:
        authority: Authority = getattr(pki, name)
        key = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_whole(private / f"{name}.pem", key + authority.pem.encode(), durable=False)
    write_whole(directory / ROOT_FILE, pki.root.der, mode=0o644, durable=False)
    platform = {"ppid": pki.platform.ppid.hex(), "piid": pki.platform.piid.hex()}
    write_whole(private / "platform.json", json.dumps(platform).encode(), durable=False)


def _load(private: Path) -> SimulatedPki:
    authorities = {}
    for name in _AUTHORITIES:
        pem = (private / f"{name}.pem").read_bytes()
        key = load_pem_private_key(pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{name}: not an EC key")
        authorities[name] = Authority(key, x509.load_pem_x509_certificate(pem))
    stored = json.loads((private / "platform.json").read_bytes())
    platform = PlatformIdentity(ppid=bytes.fromhex(stored["ppid"]), piid=bytes.fromhex(stored["piid"]))
    return SimulatedPki(platform=platform, **authorities)


def _renew(directory: Path, pki: SimulatedPki, now: datetime) -> None:
    for tee, name in COLLATERAL_FILES.items():
        path = directory / name
        if not _is_good(path, now):
            write_whole(path, json.dumps(pki.collateral(tee, now), indent=1).encode(), mode=0o644, durable=False)


def _is_good(path: Path, now: datetime) -> bool:
    try:
        tcb_info = json.loads(json.loads(path.read_bytes())["tcb_info"])
        issued, expires = (datetime.fromisoformat(tcb_info[name]) for name in ("issueDate", "nextUpdate"))
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return issued <= now and expires - now > _RENEW_BEFORE
