"""Quote with a real TPM, or swtpm, through ``tpm2-pytss`` (extra ``tpm``): the attester beside the verifier.

The attestation key is a primary key of the endorsement hierarchy, from a fixed template: the TPM derives the same key
after every boot, until its owner changes the endorsement seed, so that nothing has to be stored and an allow-list entry
stays good. It never leaves the TPM. What ties it to a TPM is a certificate, an allow-list entry, or the endorsement
key opening a credential made for it (see ``enrolment``).
"""

from __future__ import annotations

import atexit
import base64
import errno
import hashlib
import importlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from casemate.attestation.evidence import REPORT_DATA_SIZE, Evidence
from casemate.attestation.platforms.tpm.errors import (
    TpmCredentialError,
    TpmEkCertificateMissingError,
    TpmUnavailableError,
    TpmWorkloadRegisterUsedError,
)
from casemate.attestation.platforms.tpm.structures import parse_quote, parse_tpmt_public
from casemate.attestation.platforms.tpm.workload import WORKLOAD_PCR, extend_value, workload_pcr
from casemate.errors import CasemateError, UsageError

__all__ = ["DEFAULT_TCTI", "TpmAttester"]

DEFAULT_TCTI = "device:/dev/tpmrm0"
PCR_COUNT = 24
_PCRS_A_CALL = 8
_MAX_TRIES = 5
_CLOSE_SECONDS = 5.0
_LOCK_SECONDS = 30.0
_EK_CERTIFICATE = 0x01C00002  # NV index of the RSA 2048 endorsement key's certificate (TCG EK Credential Profile)
_AK_ATTRIBUTES = (
    *("FIXEDTPM", "FIXEDPARENT", "SENSITIVEDATAORIGIN", "USERWITHAUTH", "RESTRICTED", "SIGN_ENCRYPT"),
    "NODA",  # its authorisation is empty, and power cuts would lock such keys out as if somebody had guessed
)


class TpmAttester(AbstractContextManager["TpmAttester"]):
    """An ``Attester`` of tee ``tpm``. One TPM connection; close it, or use it in a ``with``. Safe to use from threads.

    ``tcti`` names the TPM as tpm2-tss does (``device:/dev/tpmrm0``, ``swtpm:host=127.0.0.1,port=2321``). ``event_log``
    is the firmware's log, ``certificates`` the attestation key's certificate and those above it (PEM, leaf first); both
    are sent along. Raises ``TpmUnavailableError``."""

    def __init__(
        self, tcti: str = DEFAULT_TCTI, *, event_log: Path | None = None, certificates: Path | None = None
    ) -> None:
        os.environ.setdefault("TSS2_LOG", "all+none")  # its lines on stderr repeat what the exceptions say
        try:
            self._tss: Any = importlib.import_module("tpm2_pytss")
            self._utils: Any = importlib.import_module("tpm2_pytss.utils")
        except ImportError as exc:
            raise TpmUnavailableError("tpm2-pytss is not installed; install casemate[tpm]") from exc
        self._name = tcti
        self._event_log, self._certificates = event_log, certificates
        self._workload: bytes | None = None
        self._ek: tuple[Any, bytes] | None = None
        self._lock = threading.RLock()  # tpm2-tss runs one command at a time on a connection
        self._closed = False
        with self._typed():
            self._esapi: Any = self._tss.ESAPI(tcti)
        try:
            with self._typed():
                self._ak, self._ak_public = self._make_ak()
        except TpmUnavailableError:
            self._esapi.close()
            raise
        atexit.register(self.close)  # a TPM without a resource manager keeps what is not flushed

    @contextmanager
    def _typed(self, error: type[CasemateError] = TpmUnavailableError) -> Iterator[None]:
        """Have the connection for oneself; the binding's exceptions end here."""
        with self._lock:
            if self._closed:
                raise TpmUnavailableError(f"TPM {self._name}: the connection was closed")
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

    @property
    def ek_public(self) -> bytes:
        """TPMT_PUBLIC of the endorsement key (RSA 2048, the TCG's default template)."""
        return self._endorsement_key()[1]

    @property
    def ek_certificate(self) -> bytes:
        """The maker's certificate for the endorsement key, DER; raises ``TpmEkCertificateMissingError``."""
        with self._typed(TpmEkCertificateMissingError):
            try:
                raw = bytes(self._utils.NVReadEK(self._esapi)(_EK_CERTIFICATE))
            except self._utils.NoSuchIndex as exc:
                raise TpmEkCertificateMissingError(f"TPM {self._name}: no NV index {_EK_CERTIFICATE:#x}") from exc
        return raw[: 4 + int.from_bytes(raw[2:4], "big")] if raw[:2] == b"\x30\x82" else raw  # some pad the index

    def bind_workload(self, digest: bytes) -> None:
        """Make PCR 8 say that the workload with this digest was launched: extend it if it is zero, else check it.

        Members of one job that share a TPM extend it once. Raises ``TpmWorkloadRegisterUsedError``."""
        expected = workload_pcr(digest)
        with _exclusive(self._name):
            if self._workload_register() == bytes(len(expected)):
                self.extend_workload(digest)
            found = self._workload_register()
        if found != expected:
            raise TpmWorkloadRegisterUsedError(
                f"PCR {WORKLOAD_PCR}: expected zeros or {expected.hex()}, got {found.hex()}: another workload was "
                "launched since this machine started"
            )
        self._workload = digest

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
        tss, ek = self._tss, self._endorsement_key()[0]
        with self._typed(TpmCredentialError):
            blob, _ = tss.TPM2B_ID_OBJECT.unmarshal(credential)
            seed, _ = tss.TPM2B_ENCRYPTED_SECRET.unmarshal(secret)
            session = self._ek_session()
            try:
                return bytes(self._esapi.activate_credential(self._ak, ek, blob, seed, session2=session))
            finally:
                self._esapi.flush_context(session)

    def close(self) -> None:
        """Leave nothing behind in the TPM. One that does not answer any more keeps nobody from ending."""
        if self._closed or not self._lock.acquire(timeout=_CLOSE_SECONDS):
            return
        try:
            with suppress(TpmUnavailableError), self._typed():
                for handle in (self._ak, *((self._ek[0],) if self._ek else ())):
                    self._esapi.flush_context(handle)
            self._closed = True
            atexit.unregister(self.close)
            self._esapi.close()
        finally:
            self._lock.release()

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
        try:
            if self._event_log is not None:
                body["event_log"] = base64.b64encode(self._event_log.read_bytes()).decode()
            if self._certificates is not None:
                body["ak_cert_chain"] = self._certificates.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as exc:
            raise TpmUnavailableError(f"file to send beside the quote: {exc}") from exc
        return body

    def _workload_register(self) -> bytes:
        with self._typed():
            return bytes(self._esapi.pcr_read(f"sha256:{WORKLOAD_PCR}")[2][0])

    def _read_pcrs(self) -> list[bytes]:
        values: list[bytes] = []
        for start in range(0, PCR_COUNT, _PCRS_A_CALL):
            numbers = ",".join(map(str, range(start, start + _PCRS_A_CALL)))
            _, _, digests = self._esapi.pcr_read(f"sha256:{numbers}")
            values += [bytes(digest) for digest in digests]
        return values

    def _endorsement_key(self) -> tuple[Any, bytes]:
        """Made when first asked for, since quoting does not need it."""
        if self._ek is None:
            with self._typed():
                self._ek = self._make_ek()
        return self._ek

    def _make_ek(self) -> tuple[Any, bytes]:
        tss = self._tss

        def no_index(index: Any) -> bytes:
            raise self._utils.NoSuchIndex(index)

        _, template = self._utils.create_ek_template("EK-RSA2048", no_index)
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
        handle, public, *_ = self._esapi.create_primary(tss.TPM2B_SENSITIVE_CREATE(), template, tss.ESYS_TR.ENDORSEMENT)
        return handle, public


@contextmanager
def _exclusive(tcti: str) -> Iterator[None]:
    """One process of this network namespace at a time between reading PCR 8 and extending it.

    The lock is a socket's name in the kernel's abstract namespace (unix(7)): it ends with its holder, without a file.
    Raises ``TpmUnavailableError`` when somebody keeps it for ``_LOCK_SECONDS``."""
    name = f"\0casemate-tpm-{hashlib.sha256(tcti.encode()).hexdigest()[:16]}"
    deadline = time.monotonic() + _LOCK_SECONDS
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as lock:
        while True:
            try:
                lock.bind(name)
                break
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE:
                    raise TpmUnavailableError(f"{tcti}: cannot keep others from it meanwhile: {exc.strerror}") from exc
                if time.monotonic() > deadline:
                    raise TpmUnavailableError(
                        f"{tcti}: another process has been binding a workload to this TPM for {_LOCK_SECONDS:g} s"
                    ) from exc
                time.sleep(0.02)
        yield
