"""The edge that computes reference values: files read, tools run; values come with what they were computed from."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from casemate.attestation.eventlog import MAX_LOG_BYTES, parse_event_log, replay_rtmrs
from casemate.attestation.platforms.sgx.sigstruct import SIGSTRUCT_SIZE, parse_sigstruct
from casemate.attestation.platforms.simulator.measure import Measurer
from casemate.attestation.reference import Input
from casemate.attestation.reference_errors import (
    ReferenceInputError,
    ReferenceToolFailedError,
    ReferenceToolMissingError,
)
from casemate.errors import CasemateError

__all__ = ["Computed", "SnpGuest", "from_event_log", "from_gramine", "from_sigstruct", "measure_runtime", "measure_snp"]

_GRAMINE = "gramine-sgx-sign"
_MAX_INPUT = 4 * 1024**3  # bytes
_TIMEOUT = 600  # seconds


@dataclass(frozen=True)
class Computed:
    """Values by name, the files they came from, the settings, and the tools with their versions."""

    values: dict[str, str]
    inputs: tuple[Input, ...] = ()
    parameters: dict[str, str] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SnpGuest:
    """How an SEV-SNP guest is launched: its firmware, direct boot if any, and its virtual processors."""

    ovmf: Path
    vcpus: int
    vcpu_type: str
    kernel: Path | None = None
    initrd: Path | None = None
    append: str | None = None
    guest_features: int = 1
    vmm: str = "QEMU"


def measure_snp(guest: SnpGuest) -> Computed:
    """The launch digest of an SEV-SNP guest, by ``sev-snp-measure``.

    Raises ``ReferenceToolMissingError`` without that package, ``ReferenceInputError`` for what it does not take."""
    try:
        from sevsnpmeasure import guest as measured
        from sevsnpmeasure.sev_mode import SevMode
        from sevsnpmeasure.vcpu_types import CPU_SIGS
        from sevsnpmeasure.vmm_types import VMMType
    except ImportError as exc:
        raise ReferenceToolMissingError("SNP launch digest: needs `pip install 'casemate[reference]'`") from exc
    if guest.vcpu_type not in CPU_SIGS:
        raise ReferenceInputError(f"--vcpu-type {guest.vcpu_type!r}: known are {', '.join(CPU_SIGS)}")
    if guest.vmm not in VMMType.__members__:
        raise ReferenceInputError(f"--vmm {guest.vmm!r}: known are {', '.join(VMMType.__members__)}")
    if guest.kernel is None and (guest.initrd is not None or guest.append is not None):
        raise ReferenceInputError("--initrd and --append go with --kernel: without one nothing measures them")
    parts = {"ovmf": guest.ovmf, "kernel": guest.kernel, "initrd": guest.initrd}
    inputs = tuple(_input(role, path) for role, path in parts.items() if path is not None)
    try:
        digest = measured.calc_launch_digest(
            SevMode.SEV_SNP,
            guest.vcpus,
            CPU_SIGS[guest.vcpu_type],
            str(guest.ovmf),
            "" if guest.kernel is None else str(guest.kernel),
            "" if guest.initrd is None else str(guest.initrd),
            guest.append or "",
            guest.guest_features,
            vmm_type=VMMType[guest.vmm],
        )
    except Exception as exc:  # the package raises what its parsing trips over: struct, Value, Runtime, Key errors
        raise ReferenceInputError(f"{guest.ovmf}: not firmware for SEV-SNP that can be measured ({exc})") from exc
    parameters = {
        "snp.vcpus": str(guest.vcpus),
        "snp.vcpu-type": guest.vcpu_type,
        "snp.guest-features": hex(guest.guest_features),
        "snp.vmm": guest.vmm,
    }
    if guest.append is not None:
        parameters["snp.append"] = guest.append
    tools = {"sev-snp-measure": _version("sev-snp-measure")}
    return Computed({"snp.measurement": bytes(digest).hex()}, inputs, parameters, tools)


def from_event_log(path: Path, registers: tuple[int, ...] = (0, 1, 2, 3)) -> Computed:
    """RTMRs of a TDX guest, replayed from a CCEL event log of a boot that is known to be good.

    A register that changes at run time is no reference value: leave it out. Raises the event log's errors."""
    values = replay_rtmrs(parse_event_log(_read(path, MAX_LOG_BYTES)))
    return Computed({f"tdx.rtmr{n}": values[n].hex() for n in registers}, (_input("event log", path),))


def from_sigstruct(path: Path) -> Computed:
    """MRENCLAVE and MRSIGNER out of an enclave's signature file (SIGSTRUCT), its own signature verified."""
    found = parse_sigstruct(_read(path, SIGSTRUCT_SIZE))
    values = {"sgx.measurement": found.mrenclave.hex(), "sgx.signer": found.mrsigner.hex()}
    parameters = {"sgx.product-id": str(found.product_id), "sgx.svn": str(found.svn)}
    return Computed(values, (_input("sigstruct", path),), parameters)


def from_gramine(manifest: Path) -> Computed:
    """MRENCLAVE of a Gramine manifest, by Gramine's own signer with a key that is thrown away.

    The signer is not told who will sign the enclave, so there is no MRSIGNER in it. Raises
    ``ReferenceToolMissingError`` or ``ReferenceToolFailedError``."""
    program = shutil.which(_GRAMINE)
    if program is None:
        raise ReferenceToolMissingError(
            f"MRENCLAVE: {_GRAMINE} is not installed; install Gramine, or give the .sig file it made: --sigstruct FILE"
        )
    entry = _input("gramine manifest", manifest)
    with tempfile.TemporaryDirectory(prefix="casemate-reference-") as folder:
        key, signature = Path(folder, "key.pem"), Path(folder, "enclave.sig")
        private = rsa.generate_private_key(public_exponent=3, key_size=3072)  # what SGX demands
        key.touch(mode=0o600)
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        command = [program, "--manifest", str(manifest), "--output", str(Path(folder, "signed.manifest"))]
        command += ["--key", str(key), "--sigfile", str(signature)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise ReferenceToolFailedError(f"{_GRAMINE}: {exc}") from exc
        if done.returncode != 0 or not signature.exists():
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise ReferenceToolFailedError(f"{_GRAMINE} ended with {done.returncode}: {''.join(last)}")
        try:
            found = parse_sigstruct(_read(signature, SIGSTRUCT_SIZE))
        except CasemateError as exc:
            raise ReferenceToolFailedError(f"{_GRAMINE}: {exc.message}") from exc
    parameters = {"sgx.product-id": str(found.product_id), "sgx.svn": str(found.svn)}
    return Computed({"sgx.measurement": found.mrenclave.hex()}, (entry,), parameters, {_GRAMINE: "unknown"})


def measure_runtime() -> Computed:
    """What the SIMULATED TEE host measures when it starts the runtime now installed."""
    value = Measurer().runtime().hex()
    return Computed({"simulator.measurement": value}, tools={"casemate": _version("casemate")})


def _input(role: str, path: Path) -> Input:
    """A file's digest; character devices such as /dev/null are empty."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
                if size > _MAX_INPUT:
                    raise ReferenceInputError(f"{path}: more than {_MAX_INPUT} bytes")
    except OSError as exc:
        raise ReferenceInputError(f"{path}: {exc.strerror or exc}") from exc
    return Input(role, path.name, digest.hexdigest(), size)


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as exc:
        raise ReferenceInputError(f"{path}: {exc.strerror or exc}") from exc


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
