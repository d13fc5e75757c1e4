"""Attesters against a tree that refuses what the kernel refuses."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import struct
import uuid
from pathlib import Path

import pytest
from tests.unit.attestation_linux.kernel import BASE, FakeGramine, FakeKernel, FakeRegisters

from casemate.attestation.errors import NoTeeError
from casemate.attestation.platforms.linux.configfs_tsm import CCEL_PATH, MAX_TRIES, TsmAttester, request_report
from casemate.attestation.platforms.linux.errors import (
    TsmBusyError,
    TsmCertificateTableError,
    TsmFailedError,
    TsmGenerationError,
    TsmTooLargeError,
)
from casemate.attestation.platforms.linux.files import OsFiles
from casemate.attestation.platforms.linux.gramine import GramineAttester
from casemate.attestation.platforms.linux.snp_certificates import (
    CERTIFICATE_GUIDS,
    endorsement_key,
    parse_certificate_table,
)
from casemate.attestation.platforms.linux.tdx_registers import TdxRegisters
from casemate.attestation.platforms.snp.body import parse_body
from casemate.errors import UsageError

REPORT_DATA = bytes(range(64))
GUIDS = {name: uuid.UUID(guid) for guid, name in CERTIFICATE_GUIDS.items()}


def table(*entries: tuple[str, bytes]) -> bytes:
    """A certificate table as SEV-SNP hosts write it."""
    offset = 24 * (len(entries) + 1)
    head, body = b"", b""
    for name, data in entries:
        head += GUIDS[name].bytes_le + struct.pack("<II", offset + len(body), len(data))
        body += data
    return head + bytes(24) + body


@pytest.fixture
def waits() -> list[float]:
    return []


class TestConfigfsTsm:
    def test_a_tdx_guest_gets_a_quote_over_its_report_data(self, waits: list[float]) -> None:
        kernel = FakeKernel()
        evidence = TsmAttester(files=kernel, sleep=waits.append).collect(REPORT_DATA)
        assert evidence.tee == "tdx"
        assert base64.b64decode(evidence.body["quote"]) == b"quote over " + REPORT_DATA
        assert "cc_eventlog" not in evidence.body
        assert waits == []

    def test_tdx_evidence_carries_the_event_log_where_there_is_one(self) -> None:
        kernel = FakeKernel(others={CCEL_PATH: b"the log"})
        body = TsmAttester(files=kernel).collect(REPORT_DATA).body
        assert base64.b64decode(body["cc_eventlog"]) == b"the log"

    def test_a_sev_guest_gets_a_report_with_the_hosts_certificates(self) -> None:
        kernel = FakeKernel(
            provider="sev_guest",
            quote=lambda data, level: bytes([level]) + data + bytes(1184 - 65),
            auxblob=table(("VCEK", b"vcek der"), ("ASK", b"ask der")),
        )
        attester = TsmAttester(files=kernel, privilege_level=2)
        assert attester.tee == "snp"
        body = parse_body(attester.collect(REPORT_DATA).body)
        assert body.report[:65] == b"\x02" + REPORT_DATA
        assert body.vek == b"vcek der"

    def test_every_request_has_a_directory_of_its_own_and_leaves_none(self) -> None:
        kernel = FakeKernel()
        attester = TsmAttester(files=kernel)
        for _ in range(3):
            attester.collect(REPORT_DATA)
        assert kernel.made == 3
        assert kernel.requests == {}

    def test_a_report_over_somebody_elses_input_is_asked_for_again(self, waits: list[float]) -> None:
        kernel = FakeKernel(intruder=2)
        report = request_report(REPORT_DATA, files=kernel, sleep=waits.append)
        assert report.outblob == b"quote over " + REPORT_DATA
        assert len(waits) == 2
        assert kernel.requests == {}

    def test_when_the_generation_moves_every_time_nothing_is_returned(self, waits: list[float]) -> None:
        kernel = FakeKernel(intruder=1000)
        with pytest.raises(TsmGenerationError, match="generation expected 1, got 2"):
            request_report(REPORT_DATA, files=kernel, sleep=waits.append)
        assert kernel.made == MAX_TRIES
        assert kernel.requests == {}

    def test_a_busy_quoting_service_is_waited_for_ever_longer(self, waits: list[float]) -> None:
        request_report(REPORT_DATA, files=FakeKernel(busy=3), sleep=waits.append)
        assert waits == sorted(waits)
        assert len(waits) == 3

    def test_a_service_that_stays_busy_is_undecided(self, waits: list[float]) -> None:
        kernel = FakeKernel(busy=1000)
        with pytest.raises(TsmBusyError):
            request_report(REPORT_DATA, files=kernel, sleep=waits.append)
        assert kernel.requests == {}

    def test_a_report_larger_than_the_kernel_hands_out_says_so(self) -> None:
        kernel = FakeKernel(quote=lambda data, level: bytes(40_000))
        with pytest.raises(TsmTooLargeError, match="EFBIG"):
            request_report(REPORT_DATA, files=kernel)
        assert kernel.requests == {}

    @pytest.mark.parametrize("size", [0, 32, 48, 63, 65])
    def test_report_data_of_another_size_never_reaches_the_kernel(self, size: int) -> None:
        kernel = FakeKernel()
        with pytest.raises(UsageError):
            request_report(bytes(size), files=kernel)
        assert kernel.made == 0

    def test_a_privilege_level_below_the_floor_is_refused_by_the_kernel(self) -> None:
        kernel = FakeKernel(provider="sev_guest", floor=2)
        with pytest.raises(TsmFailedError, match=os.strerror(errno.EINVAL)):
            request_report(REPORT_DATA, files=kernel, privilege_level=1)
        assert kernel.requests == {}

    def test_a_privilege_level_on_tdx_is_refused(self) -> None:
        with pytest.raises(TsmFailedError, match="privlevel"):
            request_report(REPORT_DATA, files=FakeKernel(), privilege_level=0)

    def test_a_machine_without_a_provider_has_no_tee(self) -> None:
        kernel = FakeKernel(provider=None)
        for ask in (lambda: TsmAttester(files=kernel).tee, lambda: request_report(REPORT_DATA, files=kernel)):
            with pytest.raises(NoTeeError, match="ENXIO"):
                ask()

    def test_an_unknown_provider_is_no_tee_of_ours(self) -> None:
        with pytest.raises(NoTeeError, match="arm_cca_guest"):
            TsmAttester(files=FakeKernel(provider="arm_cca_guest")).collect(REPORT_DATA)

    def test_a_machine_without_configfs_has_no_tee(self, tmp_path: Path) -> None:
        with pytest.raises(NoTeeError, match="not there"):
            TsmAttester(base=tmp_path / "report").collect(REPORT_DATA)

    def test_a_plain_directory_is_no_configfs(self, tmp_path: Path) -> None:
        """On a real file system the attributes are not there; nothing is created in their place."""
        with pytest.raises(TsmFailedError):
            TsmAttester(base=tmp_path).collect(REPORT_DATA)
        assert list(tmp_path.iterdir()) == []


class TestOsFiles:
    def test_writes_create_nothing_and_cut_nothing(self, tmp_path: Path) -> None:
        path, files = tmp_path / "attribute", OsFiles()
        with pytest.raises(FileNotFoundError):
            files.write(path, b"x")
        path.write_bytes(b"12345")
        files.write(path, b"ab")
        assert files.read(path) == b"ab345"

    def test_directories_come_and_go(self, tmp_path: Path) -> None:
        files, path = OsFiles(), tmp_path / "request"
        files.mkdir(path)
        assert files.exists(path)
        files.rmdir(path)
        assert not files.exists(path)


class TestTdxRegisters:
    def test_extending_hashes_the_digest_onto_the_register(self) -> None:
        kernel = FakeRegisters()
        registers = TdxRegisters(files=kernel)
        registers.extend(2, b"\1" * 48)
        assert registers.read("rtmr2") == hashlib.sha384(bytes(48) + b"\1" * 48).digest()
        assert registers.read("rtmr3") == registers.read("mrconfigid") == bytes(48)

    @pytest.mark.parametrize(("register", "size"), [(0, 48), (1, 48), (4, 48), (2, 32), (3, 64)])
    def test_other_registers_and_sizes_are_refused_before_the_kernel_is_asked(self, register: int, size: int) -> None:
        with pytest.raises(UsageError):
            TdxRegisters(files=FakeRegisters()).extend(register, bytes(size))

    def test_an_unknown_register_is_refused(self) -> None:
        with pytest.raises(UsageError, match="known are"):
            TdxRegisters(files=FakeRegisters()).read("../../../etc/passwd")

    def test_an_older_kernel_is_told_from_a_newer(self, tmp_path: Path) -> None:
        with pytest.raises(NoTeeError, match=r"6\.16"):
            TdxRegisters(base=tmp_path).read("rtmr2")

    def test_a_register_of_another_size_is_refused(self) -> None:
        kernel = FakeRegisters()
        kernel.values["mrconfigid"] = bytes(32)
        with pytest.raises(TsmFailedError, match="got 32 bytes"):
            TdxRegisters(files=kernel).read("mrconfigid")


class TestGramine:
    def test_an_enclave_quotes_its_report_data(self) -> None:
        evidence = GramineAttester(files=FakeGramine()).collect(REPORT_DATA)
        assert evidence.tee == "sgx"
        assert base64.b64decode(evidence.body["quote"]) == b"sgx quote over " + REPORT_DATA

    @pytest.mark.parametrize("kind", [b"none", b"epid"])
    def test_an_enclave_without_dcap_has_no_quotes(self, kind: bytes) -> None:
        with pytest.raises(NoTeeError, match=kind.decode()):
            GramineAttester(files=FakeGramine(kind=kind)).collect(REPORT_DATA)

    def test_a_process_outside_gramine_has_no_tee(self, tmp_path: Path) -> None:
        with pytest.raises(NoTeeError, match="not there"):
            GramineAttester(base=tmp_path).collect(REPORT_DATA)


class TestCertificateTable:
    def test_certificates_come_out_by_name(self) -> None:
        parsed = parse_certificate_table(table(("VCEK", b"v"), ("ASK", b"aa"), ("ARK", b"rrr"), ("CRL", b"c")))
        assert parsed == {"VCEK": b"v", "ASK": b"aa", "ARK": b"rrr", "CRL": b"c"}
        assert endorsement_key(parsed) == ("VCEK", b"v")
        assert endorsement_key({"ASK": b"aa"}) is None
        assert endorsement_key(parsed | {"VLEK": b"l"}) == ("VLEK", b"l")

    def test_no_table_is_no_certificate(self) -> None:
        assert parse_certificate_table(b"") == {}
        assert parse_certificate_table(bytes(4096)) == {}

    @pytest.mark.parametrize(
        "raw",
        [
            table(("VCEK", b"v"))[:20],
            table(("VCEK", b"v"))[:30],
            table(("VCEK", b"v"))[:-1],
            table(("VCEK", b"v"), ("VCEK", b"w")),
            GUIDS["VCEK"].bytes_le + struct.pack("<II", 48, 0xFFFFFFFF) + bytes(24) + b"v",
            GUIDS["VCEK"].bytes_le + struct.pack("<II", 0, 8) + bytes(24) + b"v",
            GUIDS["VCEK"].bytes_le + struct.pack("<II", 48, 0) + bytes(24),
            bytes(2 * 1024 * 1024),
            bytes(range(1, 25)) * 100,
        ],
        ids=[
            "cut in a GUID",
            "no end",
            "cut in a certificate",
            "a kind twice",
            "length of 4 GiB",
            "certificate inside the table",
            "empty certificate",
            "2 MiB",
            "one entry over and over",
        ],
    )
    def test_a_malformed_table_is_refused(self, raw: bytes) -> None:
        with pytest.raises(TsmCertificateTableError):
            parse_certificate_table(raw)


def test_the_fake_kernel_counts_generations_as_linux_does() -> None:
    """The tests above are worth what their kernel is worth."""
    kernel = FakeKernel()
    directory = BASE / "x"
    kernel.mkdir(directory)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        kernel.read(directory / "outblob")  # nothing was asked
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        kernel.write(directory / "inblob", bytes(65))
    kernel.write(directory / "inblob", bytes(64))
    assert kernel.read(directory / "generation") == b"1\n"
    kernel.requests[directory].read_generation = 2
    with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
        kernel.write(directory / "inblob", bytes(64))  # one full turn of writes without a read
    with pytest.raises(OSError, match=os.strerror(errno.EACCES)):
        kernel.write(directory / "provider", b"x")
