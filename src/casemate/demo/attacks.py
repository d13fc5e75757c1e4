"""The attacks that fail: each is really tried against the running services, and says how it was refused."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from casemate.attestation.platforms.simulator.client import LauncherClient
from casemate.demo.programs import program
from casemate.demo.replay import capture, replay
from casemate.demo.report import Attack
from casemate.demo.sandbox import Finished, Sandbox
from casemate.settings import Settings

__all__ = ["PRODUCTION_POLICY", "Attacks", "damaged"]

PRODUCTION_POLICY = """\
version: 1
name: production
description: Genuine TDX machines of the present patch level, and nothing simulated.
platforms: [tdx]
workload_binding: launch
tcb:
  statuses: [UpToDate]
"""

_SPARK = ("--master", "local[2]", "--conf", "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1")


@contextmanager
def damaged(root: Path, damage: Callable[[], None]) -> Iterator[None]:
    """Apply ``damage`` below ``root`` and undo it afterwards: the storage owner's power, for a moment."""
    backup = root.with_name(f"{root.name}.backup")
    shutil.copytree(root, backup)
    try:
        damage()
        yield
    finally:
        shutil.rmtree(root)
        backup.rename(root)


def flip_bit(path: Path) -> None:
    """Change one bit in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def truncate(path: Path) -> None:
    """Cut the last thousand bytes off a file."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1000)


def swap(a: Path, b: Path) -> None:
    """Let two files trade places."""
    spare = a.with_name("spare")
    a.rename(spare)
    b.rename(a)
    spare.rename(b)


class Attacks:
    """Attacks on one sandbox, whose vault holds the data set ``airline/flights`` at ``vault``."""

    def __init__(self, sandbox: Sandbox, directory: Path, vault: Path) -> None:
        self._sandbox = sandbox
        self._directory = directory
        self._vault = vault
        self._zone = f"airline/flights={vault}"
        self._honest = self._copy("count_rows.py", directory / "honest")

    @staticmethod
    def _copy(name: str, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(program(name), directory))

    def _submit(self, file: Path, *arguments: str) -> Finished:
        return self._sandbox.casemate("submit", str(file), *arguments, *_SPARK, "--format", "json", silent=True)

    @staticmethod
    def _outcome(name: str, finished: Finished, *codes: str) -> Attack:
        """Refused means: did not succeed, and for one of the reasons that this attack must be refused for."""
        value: dict[str, Any] = finished.value
        code = value.get("code") or None
        refused = finished.status != 0 and value["outcome"] != "done" and code in codes
        line = f"{value['outcome']}: {code}: {value['message']}" if code else finished.line
        return Attack(name, refused, code, " ".join(line.split())[:300])

    def _grant(self, *arguments: str, grant: tuple[str, ...]) -> None:
        """Agree to the honest program with these arguments, on these terms."""
        shown = self._sandbox.casemate(
            *("workload", "show", str(self._honest), *arguments),
            *("--read", self._zone, *_SPARK, "--format", "json"),
            silent=True,
        )
        manifest = self._directory / "workload.json"
        manifest.write_text(shown.check().stdout)
        self._sandbox.casemate("grant", "create", "--manifest", str(manifest), *grant, silent=True).check()

    def changed_program(self) -> Attack:
        """The owner agreed to a program; one byte of it is changed before it is submitted."""
        self._grant(str(self._vault), grant=("--for", "1h"))
        changed = self._copy("count_rows.py", self._directory / "changed")
        changed.write_bytes(changed.read_bytes().replace(b"rows:", b"Rows:"))
        finished = self._submit(changed, str(self._vault), "--read", self._zone, "--no-grant")
        return self._outcome("program changed by one byte", finished, "grant-workload-mismatch")

    def changed_argument(self) -> Attack:
        """The agreed program with an argument the owner did not see."""
        finished = self._submit(self._honest, f"{self._vault}/planes.csv", "--read", self._zone, "--no-grant")
        return self._outcome("another argument than the granted one", finished, "grant-workload-mismatch")

    def no_grant(self) -> Attack:
        """A submitter whom no owner has granted anything."""
        other = self._directory / "ungranted"
        plain = self._directory / "ungranted.csv"
        plain.write_text("a,b\n1,2\n")
        self._sandbox.casemate("key", "create", "airline/crew", silent=True).check()
        self._sandbox.casemate("encrypt", str(plain), str(other), "--dataset", "airline/crew", silent=True).check()
        finished = self._submit(self._honest, str(other), "--read", f"airline/crew={other}", "--no-grant")
        return self._outcome("a submitter without a grant", finished, "grant-missing")

    def expired_grant(self) -> Attack:
        """A grant that was good a moment ago."""
        arguments = (str(self._vault), "expired")
        self._grant(*arguments, grant=("--for", "1s"))
        time.sleep(1.5)  # the grant's own lifetime
        finished = self._submit(self._honest, *arguments, "--read", self._zone, "--no-grant")
        return self._outcome("an expired grant", finished, "grant-expired")

    def replayed_attestation(self) -> Attack:
        """Genuine evidence of a real attestation, sent again: in its own session, and for a new challenge."""
        settings = Settings.load(self._sandbox.environment)
        shown = self._sandbox.casemate(
            *("workload", "show", str(self._honest), "--read", self._zone, "--format", "json"), silent=True
        )
        manifest = shown.check().value
        manifest = manifest.get("manifest", manifest)
        captured = capture(LauncherClient(settings.tee_socket), manifest, settings.broker_url, settings.broker_ca)
        problems = [answer.json() for answer in replay(captured, settings.broker_url, settings.broker_ca)]
        codes = [str(problem.get("code")) for problem in problems]
        refused = codes[0] in ("challenge-unknown", "challenge-used") and codes[1] == "report-data-mismatch"
        line = "; ".join(f"refused: {problem.get('code')}: {problem.get('detail')}" for problem in problems)
        return Attack("a replayed attestation", refused, codes[-1], line[:300])

    def production_policy(self) -> Attack:
        """The owner's policy is one for production: it has no ``allow_simulated``."""
        policy = self._directory / "production.yaml"
        policy.write_text(PRODUCTION_POLICY)
        finished = self._submit(
            self._honest, str(self._vault), "production", "--read", self._zone, "--policy", str(policy)
        )
        return self._outcome("a policy without allow_simulated", finished, "simulated-evidence", "appraisal-refused")

    def _damaged(self, name: str, damage: Callable[[], None], *codes: str) -> Attack:
        with damaged(self._vault, damage):
            finished = self._submit(self._honest, str(self._vault), name, "--read", self._zone)
        return self._outcome(name, finished, *codes)

    def flipped_bit(self) -> Attack:
        return self._damaged(
            "one flipped bit in a stored file", lambda: flip_bit(self._vault / "flights.csv"), "file-tampered"
        )

    def truncated_file(self) -> Attack:
        return self._damaged(
            "a truncated file",
            lambda: truncate(self._vault / "weather.csv"),
            *("file-truncated", "file-tampered", "manifest-file-swapped"),
        )

    def swapped_files(self) -> Attack:
        return self._damaged(
            "two swapped files",
            lambda: swap(self._vault / "planes.csv", self._vault / "weather.csv"),
            "manifest-file-swapped",
        )

    def deleted_file(self) -> Attack:
        return self._damaged("a deleted part file", (self._vault / "planes.csv").unlink, "manifest-file-missing")

    def write_outside(self) -> Attack:
        """A program, agreed to by mistake, that writes what it read to a place outside its zones."""
        copier = self._copy("copy_rows.py", self._directory / "copier")
        target = self._directory / "leaked"
        finished = self._submit(copier, f"{self._vault}/airlines.csv", str(target), "--read", self._zone)
        attack = self._outcome("a program that writes outside its zones", finished, "outside-zones")
        return attack if not target.exists() else Attack(attack.name, False, attack.code, f"{target} was written")

    def all(self) -> Iterator[Attack]:
        """Every attack that needs no running job, in the order in which they are told."""
        for attack in (
            self.changed_program,
            self.changed_argument,
            self.no_grant,
            self.expired_grant,
            self.replayed_attestation,
            self.production_policy,
            self.flipped_bit,
            self.truncated_file,
            self.swapped_files,
            self.deleted_file,
            self.write_outside,
        ):
            yield attack()
