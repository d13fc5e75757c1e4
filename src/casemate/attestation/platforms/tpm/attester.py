"""Quote with a real TPM, or swtpm, through ``tpm2-pytss`` (extra ``tpm``): the attester beside the verifier.

The attestation key is made under the endorsement key and never leaves the TPM. What ties it to a TPM is either a
certificate, an allow-list entry, or the endorsement key opening a credential made for it (see ``credential``).
"""

from __future__ import annotations

import base64
import hashlib
import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from casemate.attestation.evidence import REPORT_DATA_SIZE, Evidence
from casemate.attestation.platforms.tpm.errors import TpmCredentialError, TpmUnavailableError
from casemate.attestation.platforms.tpm.structures import parse_quote, parse_tpmt_public
from casemate.attestation.platforms.tpm.workload import WORKLOAD_PCR, extend_value
from casemate.errors import CasemateError, UsageError

__all__ = ["DEFAULT_TCTI", "TpmAttester"]

DEFAULT_TCTI = "device:/dev/tpmrm0"
PCR_COUNT = 24
_PCRS_A_CALL = 8
_MAX_TRIES = 5
_AK_ATTRIBUTES = ("FIXEDTPM", "FIXEDPARENT", "SENSITIVEDATAORIGIN", "USERWITHAUTH", "RESTRICTED", "SIGN_ENCRYPT")


class TpmAttester(AbstractContextManager["TpmAttester"]):
    """An ``Attester`` of tee ``tpm``. One TPM connection; close it, or use it in a ``with``.

    ``tcti`` names the TPM as tpm2-tss does (``device:/dev/tpmrm0``, ``swtpm:host=127.0.0.1,port=2321``). ``event_log``
    is the firmware's log, sent along when it is there. Raises ``TpmUnavailableError``."""

    def __init__(self, tcti: str = DEFAULT_TCTI, *, event_log: Path | None = None) -> None:
        try:
            self._tss: Any = importlib.import_module("tpm2_pytss")
            self._utils: Any = importlib.import_module("tpm2_pytss.utils")
        except ImportError as exc:
            raise TpmUnavailableError("tpm2-pytss is not installed; install casemate[tpm]") from exc
        self._name = tcti
        self._event_log = event_log
        self._workload: bytes | None = None
        with self._typed():
            self._esapi: Any = self._tss.ESAPI(tcti)
        try:
            with self._typed():
                self._ek, self.ek_public = self._make_ek()
                self._ak, self._ak_public = self._make_ak()
        except TpmUnavailableError:
            self._esapi.close()
            raise

    @contextmanager
    def _typed(self, error: type[CasemateError] = TpmUnavailableError) -> Iterator[None]:
        """The binding's exceptions end here."""
        try:
            yield
        except (self._tss.TSS2_Exception, RuntimeError) as exc:
            raise error(f"TPM {self._name}: {exc}") from exc

    @property
    def tee(self) -> str:
        return "tpm"

    @property
    def ak_tpmt(self) -> bytes:
        """TPMT_PUBLIC of the attestation key; its SHA-256 after the algorithm id is the key's TPM name."""
        return bytes(self._ak_public.publicArea.marshal())

    @property
    def ak_spki(self) -> bytes:
        """The attestation key for allow-lists."""
        return parse_tpmt_public(self.ak_tpmt).spki

    def extend_workload(self, digest: bytes) -> None:
        """Extend PCR 8 with a workload digest (see ``workload``); once a boot, since it cannot be undone."""
        tss = self._tss
        values = [
            tss.TPMT_HA(hashAlg=getattr(tss.TPM2_ALG, bank.upper()), digest=tss.TPMU_HA(**{bank: value}))
            for bank in ("sha256", "sha384")
            for value in (extend_value(digest, bank),)
        ]
        with self._typed():
            self._esapi.pcr_extend(tss.ESYS_TR(WORKLOAD_PCR), tss.TPML_DIGEST_VALUES(values))
        self._workload = digest

    def collect(self, report_data: bytes) -> Evidence:
        """Quote all PCRs of the SHA-256 bank over ``report_data``; again when a PCR moved between read and quote."""
        if len(report_data) != REPORT_DATA_SIZE:
            raise UsageError(f"report data: got {len(report_data)} bytes, need {REPORT_DATA_SIZE}")
        for _ in range(_MAX_TRIES):
            selection = "sha256:" + ",".join(map(str, range(PCR_COUNT)))
            with self._typed():
                pcrs = self._read_pcrs()
                attest, signature = self._esapi.quote(self._ak, selection, self._tss.TPM2B_DATA(report_data))
            message = bytes(attest.attestationData)
            if parse_quote(message).pcr_digest == hashlib.sha256(b"".join(pcrs)).digest():
                return Evidence("tpm", self._body(message, bytes(signature.marshal()), pcrs))
        raise TpmUnavailableError(f"TPM: PCRs changed during each of {_MAX_TRIES} quotes")

    def activate_credential(self, credential: bytes, secret: bytes) -> bytes:
        """Open what ``credential.make_credential`` sealed: proof that this attestation key lives beside this EK.

        Raises ``TpmCredentialError``."""
        tss = self._tss
        with self._typed(TpmCredentialError):
            blob, _ = tss.TPM2B_ID_OBJECT.unmarshal(credential)
            seed, _ = tss.TPM2B_ENCRYPTED_SECRET.unmarshal(secret)
            session = self._ek_session()
            try:
                return bytes(self._esapi.activate_credential(self._ak, self._ek, blob, seed, session2=session))
            finally:
                self._esapi.flush_context(session)

    def close(self) -> None:
        for handle in (self._ak, self._ek):
            self._esapi.flush_context(handle)
        self._esapi.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _body(self, message: bytes, signature: bytes, pcrs: list[bytes]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "ak_public": base64.b64encode(self.ak_spki).decode(),
            "ak_pub_tpmt": self.ak_tpmt.hex(),
            "tpm_quote": {
                "message": base64.b64encode(message).decode(),
                "signature": base64.b64encode(signature).decode(),
                "pcrs": [value.hex() for value in pcrs],
            },
        }
        if self._workload is not None:
            body["workload"] = self._workload.hex()
        if self._event_log is not None and self._event_log.exists():
            body["event_log"] = base64.b64encode(self._event_log.read_bytes()).decode()
        return body

    def _read_pcrs(self) -> list[bytes]:
        values: list[bytes] = []
        for start in range(0, PCR_COUNT, _PCRS_A_CALL):
            numbers = ",".join(map(str, range(start, start + _PCRS_A_CALL)))
            _, _, digests = self._esapi.pcr_read(f"sha256:{numbers}")
            values += [bytes(digest) for digest in digests]
        return values

    def _make_ek(self) -> tuple[Any, bytes]:
        tss = self._tss

        def no_certificate(index: Any) -> bytes:
            raise self._utils.NoSuchIndex(index)

        _, template = self._utils.create_ek_template("EK-RSA2048", no_certificate)
        handle, public, *_ = self._esapi.create_primary(tss.TPM2B_SENSITIVE_CREATE(), template, tss.ESYS_TR.ENDORSEMENT)
        return handle, bytes(public.publicArea.marshal())

    def _ek_session(self) -> Any:
        """The EK's own policy: whoever may use the endorsement hierarchy."""
        tss = self._tss
        symmetric = tss.TPMT_SYM_DEF(algorithm=tss.TPM2_ALG.NULL)
        session = self._esapi.start_auth_session(
            tss.ESYS_TR.NONE, tss.ESYS_TR.NONE, tss.TPM2_SE.POLICY, symmetric, tss.TPM2_ALG.SHA256
        )
        nonce, expiration = b"", 0
        self._esapi.policy_secret(tss.ESYS_TR.ENDORSEMENT, session, nonce, b"", b"", expiration)
        return session

    def _make_ak(self) -> tuple[Any, Any]:
        tss = self._tss
        attributes = 0
        for name in _AK_ATTRIBUTES:
            attributes |= int(getattr(tss.TPMA_OBJECT, name))
        template = tss.TPM2B_PUBLIC.parse("ecc:ecdsa-sha256:null", objectAttributes=tss.TPMA_OBJECT(attributes))
        session = self._ek_session()
        try:
            private, public, *_ = self._esapi.create(self._ek, tss.TPM2B_SENSITIVE_CREATE(), template, session1=session)
        finally:
            self._esapi.flush_context(session)
        session = self._ek_session()
        try:
            return self._esapi.load(self._ek, private, public, session1=session), public
        finally:
            self._esapi.flush_context(session)
