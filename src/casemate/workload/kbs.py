"""The attesting client of a key broker: confidential-containers KBS protocol 0.4.0, and Casemate's additions.

Challenge, evidence over it, token; then resources sealed to the attested key. What Casemate adds (job certificate,
recorded generations) is asked for with the token and a proof of possession of that key (RFC 9449).
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from casemate.attestation.binding import report_data
from casemate.attestation.evidence import Attester
from casemate.crypto.jose import Jwk, KeyPair
from casemate.crypto.proof import make_proof
from casemate.crypto.secret import KEY_SIZE, Secret
from casemate.data.errors import KeyDeniedError
from casemate.data.generations import NOTHING_RECORDED, Generation
from casemate.data.keys import DatasetKey
from casemate.errors import RefusedError
from casemate.model import DatasetName, Role
from casemate.workload.errors import KeyBrokerAnswerError
from casemate.workload.http import Answer, BrokerConnection
from casemate.workload.manifest import BrokerEntry

__all__ = ["PROTOCOL_VERSION", "JobCertificate", "KeyBroker"]

PROTOCOL_VERSION = "0.4.0"
_DEFAULT_LIFETIME = timedelta(minutes=5)  # of a token that does not say
_STALE = frozenset({"token-expired", "token-invalid", "not-attested"})


@dataclass(frozen=True)
class JobCertificate:
    """A certificate for the attested key, and the certificate of the job's own authority; both PEM."""

    certificate: str
    ca: str


class KeyBroker:
    """One attested session with one broker. Safe to use from threads.

    Every method raises the broker's own refusal (with its code and refusal id), ``KeyBrokerUnreachableError``,
    ``WrongBrokerError``, or ``KeyBrokerAnswerError``."""

    def __init__(
        self,
        entry: BrokerEntry,
        attester: Attester,
        key: KeyPair,
        *,
        job: str,
        role: Role,
        init_data: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._connection = BrokerConnection(entry)
        self._attester = attester
        self._key = key
        self._job, self._role, self._init_data = job, role, init_data
        self._clock = clock
        self._lock = threading.RLock()
        self._token = ""
        self._cookie = ""
        self.attested_at: datetime | None = None
        self.expires: datetime | None = None

    @property
    def url(self) -> str:
        return self._connection.url

    @property
    def tee_pubkey(self) -> Jwk:
        """The attested key as the protocol wants it: with the algorithm to seal with."""
        return {**self._key.public, "alg": "ECDH-ES+A256KW"}

    def attest(self) -> None:
        """A fresh challenge, evidence over it, and the token it earns; replaces the session there was."""
        with self._lock:
            challenge = self._connection.request(
                "POST",
                "/kbs/v0/auth",
                body={
                    "version": PROTOCOL_VERSION,
                    "tee": self._attester.tee,
                    "extra-params": {"casemate": {"job": self._job, "role": str(self._role)}},
                },
            )
            nonce: str = challenge.member("nonce", str)
            evidence = self._attester.collect(report_data(nonce, self.tee_pubkey))
            cookie = "; ".join(challenge.cookies)
            answer = self._connection.request(
                "POST",
                "/kbs/v0/attest",
                body={
                    "init-data": {"format": "json", "body": self._init_data},
                    "runtime-data": {"nonce": nonce, "tee-pubkey": self.tee_pubkey},
                    "tee-evidence": {"primary_evidence": dict(evidence.body), "additional_evidence": ""},
                },
                headers=lambda _: {"Cookie": cookie},
            )
            self._token = answer.member("token", str)
            self._cookie = "; ".join(answer.cookies) or cookie
            self.attested_at = self._clock()
            self.expires = _expiry(self._token) or self.attested_at + _DEFAULT_LIFETIME

    def dataset_key(self, dataset: DatasetName, version: int | None = None) -> DatasetKey:
        """One version of a dataset key, the current one by default; raises ``KeyDeniedError`` for an unusable one."""
        tag = "current" if version is None else str(version)
        secret = self._resource(f"{quote(dataset.owner)}/{quote(dataset.name)}/{tag}")
        key = _dataset_key(dataset, secret)
        if version not in (None, key.version):
            raise KeyDeniedError(f"{dataset}: asked for key version {version}, the broker sent {key.version}")
        return key

    def job_secret(self) -> Secret:
        """The 32 bytes that all attested members of the job share."""
        return self._resource(f"job/{quote(self._job)}/secret").require_size(KEY_SIZE)

    def certificate(self, names: tuple[str, ...] = ()) -> JobCertificate:
        """A certificate of the job's authority for the attested key, good for localhost and ``names``."""
        answer = self._proven("POST", f"/v1/jobs/{quote(self._job)}/certificate", body={"names": list(names)})
        return JobCertificate(answer.member("certificate", str), answer.member("ca", str))

    def generation(self, dataset: DatasetName, location: str) -> Generation:
        """The latest commit recorded for a location of a dataset."""
        answer = self._proven("GET", f"{_generations(dataset)}?{urlencode({'location': location})}")
        number: int = answer.member("generation", int)
        if number == 0:
            return NOTHING_RECORDED
        try:
            return Generation(number, answer.member("digest", str))
        except ValueError as exc:
            raise KeyBrokerAnswerError(f"{self.url}: {exc}") from exc

    def record(self, dataset: DatasetName, location: str, generation: Generation) -> None:
        """Record the next commit; raises ``GenerationConflictError`` when somebody else was first."""
        self._proven(
            "PUT",
            f"{_generations(dataset)}?{urlencode({'location': location})}",
            body={"generation": generation.number, "digest": generation.digest},
        )

    def close(self) -> None:
        self._connection.close()

    def _resource(self, path: str) -> Secret:
        answer = self._again_when_stale(
            lambda: self._connection.request("GET", f"/kbs/v0/resource/{path}", headers=self._bearer)
        )
        if not isinstance(answer.value, dict):
            raise KeyBrokerAnswerError(
                f"{self.url}: resource: need a sealed message, got {type(answer.value).__name__}"
            )
        return self._key.unseal(answer.value)

    def _proven(self, method: str, path: str, *, body: Any = None) -> Answer:
        def headers(url: str) -> Mapping[str, str]:
            proof = make_proof(self._key, method=method, url=url, now=self._clock(), token=self._token)
            return {"Authorization": f"DPoP {self._token}", "DPoP": proof}

        return self._again_when_stale(lambda: self._connection.request(method, path, body=body, headers=headers))

    def _bearer(self, _url: str) -> Mapping[str, str]:
        cookie = {"Cookie": self._cookie} if self._cookie else {}
        return {"Authorization": f"Bearer {self._token}", **cookie}

    def _again_when_stale(self, send: Callable[[], Answer]) -> Answer:
        try:
            return send()
        except RefusedError as exc:
            if exc.code not in _STALE:
                raise
        self.attest()  # the session ended on the broker's side: a restart, or a machine that slept
        return send()


def _generations(dataset: DatasetName) -> str:
    return f"/v1/datasets/{quote(dataset.owner)}/{quote(dataset.name)}/generations"


def _expiry(token: str) -> datetime | None:
    """When a JWT says it ends. Not verified: it is the broker's own word to us over TLS, and only sets our timer."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return datetime.fromtimestamp(claims["exp"], UTC)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError):
        return None


def _dataset_key(dataset: DatasetName, secret: Secret) -> DatasetKey:
    """The key in an ``oct`` JWK whose ``kid`` is ``owner/name/version``; nothing of it reaches a message."""
    try:
        jwk = json.loads(secret.reveal())
        name, _, version = jwk["kid"].rpartition("/")
        if jwk["kty"] != "oct" or name != str(dataset) or not version.isdecimal() or int(version) < 1:
            raise KeyDeniedError(f"{dataset}: the broker sent the key of {jwk['kid']!r}")
        raw = base64.urlsafe_b64decode(jwk["k"] + "=" * (-len(jwk["k"]) % 4))
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        raise KeyDeniedError(f"{dataset}: the broker's resource is not a JSON Web Key") from None
    return DatasetKey(dataset, int(version), Secret(raw).require_size(KEY_SIZE))
