"""Attacks on stored datasets, through the mount and through staging: refused, and what was attacked is named."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.dataset_attacks import ATTACKS, Scene, refusal
from tests.support.fake_agent import FakeAgent
from tests.support.plain_programs import Programs, needs_fuse

from casemate.data.filesystem import ZoneFileSystem
from casemate.data.session import ZoneSession
from casemate.data.zones import ZoneMap
from casemate.model import DatasetName
from casemate.workload.files.stage import copies_of, fill

PATIENTS = DatasetName.parse("hospital/patients")

READ_EVERYTHING = """
import os, sys

def fail(error):
    raise error

for root in sys.argv[1:]:
    try:
        size = 0
        for directory, _, names in os.walk(root, onerror=fail):
            for name in names:
                with open(os.path.join(directory, name), "rb") as file:
                    size += len(file.read())
        print(root, "read", size)
    except OSError as exc:
        print(root, "refused", exc.strerror)
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    base = tmp_path_factory.mktemp("attacks")
    zone = FakeAgent.zone(base / "vault", str(PATIENTS), "read")
    with Programs(base, [zone]) as programs:
        agent = programs.agent
        for number, attack in enumerate(ATTACKS):
            root, scratch = base / "vault" / f"scene-{number}", base / f"scratch-{number}"
            attack.act(Scene(root, scratch, agent.keys, agent.records, PATIENTS))
        Scene(base / "vault" / "good", base / "scratch", agent.keys, agent.records, PATIENTS)
        yield programs


@needs_fuse
def test_a_mounted_program_gets_no_byte_of_an_attacked_dataset_as_good(programs: Programs) -> None:
    victims = [f"vault/scene-{number}/victim" for number in range(len(ATTACKS))]
    ran = programs.python("mount", READ_EVERYTHING, *victims, "vault/good/victim")
    lines = dict(line.split(" ", 1) for line in ran.output.splitlines())
    assert lines.pop("vault/good/victim").startswith("read ")
    assert set(lines.values()) == {"refused Input/output error"}, lines
    for number, attack in enumerate(ATTACKS):
        told = [report for report in ran.reports if f"/scene-{number}/" in report]
        assert told, attack.name
        assert told[0].startswith(attack.codes), attack.name
        assert attack.named in told[0], attack.name


def test_no_attacked_dataset_is_staged(programs: Programs, tmp_path: Path) -> None:
    for number, attack in enumerate(ATTACKS):
        zone = FakeAgent.zone(programs.base / "vault" / f"scene-{number}" / "victim", str(PATIENTS), "read")
        files = ZoneFileSystem(ZoneSession(ZoneMap([zone]), programs.agent.keys, programs.agent.records))
        message = refusal(lambda files=files, zone=zone: fill(files, copies_of([zone], tmp_path)))  # type: ignore[misc]
        assert message.startswith(attack.codes), f"{attack.name}: {message}"
        assert attack.named in message
        shutil.rmtree(tmp_path / "0")
    ran = programs.shell("stage", "echo started")
    assert (ran.status, ran.output) == (1, "")
    assert ran.reports[0].startswith("manifest-")
