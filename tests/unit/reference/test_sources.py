"""Values are computed from the build: known answers, and a clear line for what is missing."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from casemate.attestation.eventlog import EventLogMalformedError
from casemate.attestation.platforms.sgx.sigstruct import parse_sigstruct
from casemate.attestation.platforms.simulator.measure import Measurer
from casemate.attestation.reference_errors import (
    ReferenceInputError,
    ReferenceSignatureError,
    ReferenceToolFailedError,
    ReferenceToolMissingError,
)
from casemate.attestation.reference_sources import (
    SnpGuest,
    from_event_log,
    from_gramine,
    from_sigstruct,
    measure_runtime,
    measure_snp,
)

KNOWN = "6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa"
NULL = Path("/dev/null")


def _guest(ovmf: Path, **changes: object) -> SnpGuest:
    fields = {"kernel": NULL, "initrd": NULL, "append": "console=ttyS0 loglevel=7", **changes}
    return SnpGuest(ovmf, **{"vcpus": 1, "vcpu_type": "EPYC-v4", **fields})  # type: ignore[arg-type]


def test_the_snp_launch_digest_has_the_known_answer(vectors: Path) -> None:
    ovmf = vectors / "snp" / "ovmf_AmdSev_suffix.bin"
    found = measure_snp(_guest(ovmf))
    assert found.values == {"snp.measurement": KNOWN}
    assert found.inputs[0].sha256 == hashlib.sha256(ovmf.read_bytes()).hexdigest()
    assert found.tools == {"sev-snp-measure": "0.0.13"}
    assert measure_snp(_guest(ovmf, vcpus=2)).values["snp.measurement"] != KNOWN
    assert measure_snp(_guest(ovmf, append="console=ttyS0 loglevel=8")).values["snp.measurement"] != KNOWN


@pytest.mark.parametrize(
    "changes", [{"vcpu_type": "Pentium"}, {"vmm": "xen"}, {"kernel": None}, {"kernel": Path("/absent/vmlinuz")}]
)
def test_settings_that_measure_nothing_are_refused(changes: dict[str, object], vectors: Path) -> None:
    with pytest.raises(ReferenceInputError):
        measure_snp(_guest(vectors / "snp" / "ovmf_AmdSev_suffix.bin", **changes))


@pytest.mark.parametrize("content", [b"", b"not firmware", bytes(4096)])
def test_what_is_no_firmware_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "OVMF.fd").write_bytes(content)
    with pytest.raises(ReferenceInputError):
        measure_snp(_guest(tmp_path / "OVMF.fd"))


def test_a_missing_package_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sevsnpmeasure", None)
    with pytest.raises(ReferenceToolMissingError, match=r"casemate\[reference\]"):
        measure_snp(_guest(NULL))


def test_rtmrs_come_from_a_real_event_log(vectors: Path) -> None:
    found = from_event_log(vectors / "tdx" / "google_cos113.ccel.bin", (0, 1))
    quote = (vectors / "tdx" / "google_cos113_v4.quote").read_bytes()
    rtmrs = quote[48 + 328 :]
    assert found.values == {f"tdx.rtmr{n}": rtmrs[48 * n : 48 * n + 48].hex() for n in (0, 1)}


def test_what_is_no_event_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(bytes(100))
    with pytest.raises(EventLogMalformedError):
        from_event_log(tmp_path / "log")
    with pytest.raises(ReferenceInputError):
        from_event_log(tmp_path / "absent")


def test_mrenclave_and_mrsigner_come_from_the_signature_file(
    make_sigstruct: Callable[..., bytes], enclave_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    (tmp_path / "app.sig").write_bytes(make_sigstruct())
    found = from_sigstruct(tmp_path / "app.sig")
    modulus = enclave_key.public_key().public_numbers().n.to_bytes(384, "little")
    assert found.values == {"sgx.measurement": "09" * 32, "sgx.signer": hashlib.sha256(modulus).hexdigest()}
    assert found.parameters == {"sgx.product-id": "3", "sgx.svn": "7"}


@pytest.mark.parametrize("at", [0, 24, 128, 300, 600, 900, 960, 1024])
def test_a_changed_signature_file_is_refused(at: int, make_sigstruct: Callable[..., bytes]) -> None:
    raw = bytearray(make_sigstruct())
    raw[at] ^= 2
    with pytest.raises((ReferenceInputError, ReferenceSignatureError)):
        parse_sigstruct(bytes(raw))


@pytest.mark.parametrize("size", [0, 1807, 1809])
def test_a_signature_file_has_one_size(size: int, make_sigstruct: Callable[..., bytes]) -> None:
    with pytest.raises(ReferenceInputError, match="1808"):
        parse_sigstruct((make_sigstruct() + b"\0")[:size])


def test_without_gramine_there_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "app.manifest").write_text("")
    with pytest.raises(ReferenceToolMissingError, match="--sigstruct"):
        from_gramine(tmp_path / "app.manifest")


def _stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> Path:
    """A program of the signer's name that takes its documented options."""
    program = folder / "gramine-sgx-sign"
    program.write_text(f"#!{sys.executable}\nimport shutil, sys\n{source}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    (folder / "app.manifest").write_text("libos.entrypoint = 'app'\n")
    return folder / "app.manifest"


def test_gramines_signer_measures_when_it_is_there(
    make_sigstruct: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made.sig").write_bytes(make_sigstruct(bytes([5] * 32)))
    copy = f"shutil.copy({str(tmp_path / 'made.sig')!r}, sys.argv[sys.argv.index('--sigfile') + 1])\n"
    found = from_gramine(_stand_in(tmp_path, monkeypatch, copy))
    assert found.values == {"sgx.measurement": "05" * 32}
    assert [one.role for one in found.inputs] == ["gramine manifest"]


@pytest.mark.parametrize("source", ["sys.exit('manifest: no such key')\n", "\n"])
def test_a_signer_that_fails_is_named(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReferenceToolFailedError, match="gramine-sgx-sign"):
        from_gramine(_stand_in(tmp_path, monkeypatch, source))


def test_the_simulators_value_is_what_its_host_measures() -> None:
    assert measure_runtime().values["simulator.measurement"] == Measurer().runtime().hex()
