"""The main job, start to finish: from nothing to a decrypted result, and then the attacks.

Everything is done with the commands a user types, against services in a directory of their own.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from casemate.demo.attacks import Attacks
from casemate.demo.dataset import write_plain
from casemate.demo.programs import program
from casemate.demo.report import Attack, Report
from casemate.demo.rogue import find_target, run_rogue_executor
from casemate.demo.sandbox import Finished, Sandbox
from casemate.demo.search import Hit, LoopbackCapture, Watcher
from casemate.demo.tables import differences
from casemate.errors import CasemateError, FailedError

__all__ = ["run"]

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - searched, not written
_TARGET_SECONDS = 180
_SHORT_JOB = (  # for minutes on a laptop: compile less, split less; the same for both runs
    *("--conf", "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1"),
    *("--conf", "spark.executor.extraJavaOptions=-XX:TieredStopAtLevel=1"),
    *("--conf", "spark.sql.shuffle.partitions=8"),
)


def run(directory: Path, say: Callable[[str], None] = print) -> Report:
    """Run the demonstration in ``directory`` (emptied first) and write ``report.json`` there."""
    directory = directory.absolute()
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    report = Report()
    try:
        _Story(directory, report, say).tell()
    finally:
        (directory / "report.json").write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    return report


class _Story:
    def __init__(self, directory: Path, report: Report, say: Callable[[str], None]) -> None:
        self._directory, self._report, self._say = directory, report, say
        self._canary = f"CANARY{secrets.token_hex(8).upper()}"
        self._needles = {"canary": self._canary.encode(), "canary (UTF-16)": self._canary.encode("utf-16-le")}
        self._plain, self._vault = directory / "plain", directory / "vault"

    def tell(self) -> None:
        report = self._report
        with report.step("data"):
            report.rows = write_plain(self._plain, self._canary).rows
        self._say(f"{report.rows} rows of {report.source}, {report.licence}; a canary is planted in them")
        sandbox = Sandbox(self._directory / "home", echo=self._say)
        with report.step("services"):
            sandbox.__enter__()
        try:
            self._with_services(sandbox)
        finally:
            sandbox.__exit__(None, None, None)

    def _with_services(self, sandbox: Sandbox) -> None:
        report, flights = self._report, self._vault / "flights"
        with report.step("encrypt"):
            sandbox.casemate("key", "create", "airline/flights").check()
            sandbox.casemate("encrypt", str(self._plain), str(flights), "--dataset", "airline/flights").check()
        with report.step("job"):
            self._protected_job(sandbox, flights)
        with report.step("plain job"):
            self._plain_job(sandbox)
        with report.step("decrypt and compare"):
            decrypted = self._directory / "decrypted"
            sandbox.casemate("decrypt", str(self._vault / "report"), str(decrypted)).check()
            report.differences = differences(self._directory / "plain-report", decrypted)
            report.result_equal_to_plain = not report.differences
            self._show(decrypted)
        with report.step("attacks"):
            for attack in Attacks(sandbox, self._directory / "attacks", flights).all():
                self._note(attack)
        with report.step("audit"):
            verified = sandbox.casemate("audit", "verify", "--format", "json").check().value
            report.audit_whole, report.audit_entries = bool(verified["whole"]), int(verified["entries"])

    def _protected_job(self, sandbox: Sandbox, flights: Path) -> None:
        report, events = self._report, self._vault / "events"
        command = [
            *("submit", str(program("flight_delays.py")), str(flights), str(self._vault / "report")),
            *("--read", f"airline/flights={flights}", "--write", f"airline/report={self._vault / 'report'}"),
            *("--write", f"airline/events={events}", "--master", "standalone", "--workers", "2"),
            *("--conf", "spark.eventLog.enabled=true", "--conf", f"spark.eventLog.dir=file://{events}"),
            *(*_SHORT_JOB, "--format", "json"),
        ]
        events.mkdir(parents=True)
        self._say(f"$ casemate {' '.join(command)}")
        shared = [_SHARED_MEMORY, Path(tempfile.gettempdir())]
        with self._searching("protected", [self._directory / "home", self._vault], shared) as search:
            job = sandbox.start([sys.executable, "-m", "casemate", *command])
            rogue = self._rogue(sandbox, job)
            finished = sandbox.finish(job, "casemate submit")
        report.canary_places = search.places()
        report.canary_hits = len(report.canary_places)
        report.files_searched, report.loopback_captured = search.watcher.files_searched, search.capture.available
        for line in finished.stderr.splitlines():
            if line.startswith(("attested:", "granted", "flights:", "SIMULATED")):
                self._say(line)
        outcome = finished.value
        report.attestations = int(outcome.get("attestations", 0))
        if finished.status != 0:
            raise FailedError(f"the job did not succeed: {outcome.get('code')}: {outcome.get('message')}")
        self._note(rogue)

    def _rogue(self, sandbox: Sandbox, job: subprocess.Popen[str]) -> Attack:
        """While the job runs: an executor that nobody attested asks its driver for work."""
        name = "an executor started outside `casemate run`"
        deadline = time.monotonic() + _TARGET_SECONDS
        while (target := find_target(sandbox.pid)) is None:
            if job.poll() is not None or time.monotonic() > deadline:
                return Attack(name, False, None, "the job ended before its driver's address was found")
            time.sleep(0.2)
        try:
            outcome = run_rogue_executor(target, self._directory / "attacks" / "rogue")
        except CasemateError as exc:
            return Attack(name, False, None, exc.message)
        line = f"refused: peer-certificate-refused: driver {target.driver_url}: {outcome.line}"
        return Attack(name, not outcome.registered, "peer-certificate-refused", line)

    def _plain_job(self, sandbox: Sandbox) -> None:
        """The same program, by plain ``spark-submit``, on the plain data: the reference, and the search's control."""
        scratch, events = self._directory / "plain-scratch", self._directory / "plain-events"
        for path in (scratch, events):
            path.mkdir()
        command = [
            *(str(Path(sys.executable).with_name("spark-submit")), "--master", "local[2]", *_SHORT_JOB),
            *("--conf", f"spark.local.dir={scratch}", "--conf", "spark.eventLog.enabled=true"),
            *("--conf", f"spark.eventLog.dir=file://{events}", str(program("flight_delays.py"))),
            *(str(self._plain), str(self._directory / "plain-report")),
        ]
        self._say(f"$ spark-submit {' '.join(command[3:])}")
        with self._searching("plain", [scratch, events, self._directory / "plain-report"]) as search:
            finished: Finished = sandbox.finish(sandbox.start(command), "spark-submit").check()
        self._say(next((line for line in finished.stdout.splitlines() if line.startswith("flights:")), ""))
        self._report.plain_canary_places = search.places()
        self._report.plain_canary_hits = len(self._report.plain_canary_places)
        hits, plain_hits = self._report.canary_hits, self._report.plain_canary_hits
        line = f"canary found in {hits} places of the protected run, in {plain_hits} of the plain run"
        self._note(Attack("canary search", hits == 0 and plain_hits > 0, "nothing-found" if hits == 0 else None, line))

    def _searching(self, name: str, roots: Iterable[Path], shared: Iterable[Path] = ()) -> _Search:
        capture = self._directory / f"{name}.pcap"
        return _Search(Watcher(self._needles, roots, shared=shared, skip=[capture]), self._needles, capture)

    def _note(self, attack: Attack) -> None:
        self._report.attacks.append(attack)
        self._say(f"{'refused ' if attack.refused else 'NOT REFUSED'} {attack.name}: {attack.line}")

    def _show(self, decrypted: Path) -> None:
        """The table the owner was waiting for."""
        for path in sorted(decrypted.glob("model/*.csv")):
            for line in path.read_text(encoding="utf-8").splitlines():
                self._say(f"    {line}")


class _Search:
    """Watches trees, processes and the loopback device for the time of one run. A context manager."""

    def __init__(self, watcher: Watcher, needles: dict[str, bytes], capture: Path) -> None:
        self._needles, self._capture_path = needles, capture
        self.watcher = watcher
        self.capture = LoopbackCapture(capture)
        self.hits: set[Hit] = set()

    def __enter__(self) -> _Search:
        self.capture.__enter__()
        self.watcher.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.watcher.__exit__(None, None, None)
        self.capture.__exit__(None, None, None)
        self.hits = self.watcher.hits | self.capture.search(self._needles)
        self._capture_path.unlink(missing_ok=True)

    def places(self) -> list[str]:
        return sorted({f"{hit.needle}: {hit.place}" for hit in self.hits})
