"""Odd files and paths by every way into a zone but Spark's (``tests/integration/java``): as the table in the
documentation says."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.fake_agent import FakeAgent
from tests.support.plain_programs import Programs, needs_fuse
from tests.support.ways import BIG, CASES, PLAIN, PROBE, TABLE, make_big_file, make_odd_files

from casemate.data.dataset import decrypt_tree, encrypt_tree
from casemate.data.filesystem import ZoneFileSystem
from casemate.data.session import ZoneSession
from casemate.errors import CasemateError
from casemate.model import DatasetName

PATIENTS = DatasetName.parse("hospital/patients")
Answers = dict[str, Any]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    base = tmp_path_factory.mktemp("ways")
    make_odd_files(base / "plain")
    (base / "outside").mkdir()
    (base / "secret").write_text("secret")
    zones = [FakeAgent.zone(base / "in", str(PATIENTS), "read"), FakeAgent.zone(base / "rw", str(PATIENTS))]
    with Programs(base, zones) as programs:
        agent = programs.agent
        encrypt_tree(base / "plain", base / "in", dataset=PATIENTS, keys=agent.keys, records=agent.records)
        (base / "in" / "link-out").symlink_to(base / "secret")
        yield programs


@pytest.fixture(scope="module")
def plain(programs: Programs) -> Answers:
    """What plain storage answers; a link is followed, and a write goes where its path leads."""
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, "plain"], cwd=programs.base, capture_output=True, text=True, check=True
    )
    answers: Answers = json.loads(ran.stdout)
    return answers


def check(way: str, answers: Answers, plain: Answers) -> None:
    for case in answers:
        expected = TABLE[case][way]
        assert answers[case] == (plain[case] if expected == PLAIN else expected), (way, case)


@needs_fuse
def test_through_the_mount(programs: Programs, plain: Answers) -> None:
    ran = programs.python("mount", PROBE, "in", "rw")
    assert ran.status == 0, ran
    check("mount", json.loads(ran.output), plain)
    assert not list((programs.base / "outside").iterdir())


def test_on_staged_copies(programs: Programs, plain: Answers) -> None:
    ran = programs.python("stage", PROBE, "in", "rw")
    assert ran.status == 0, ran
    answers = json.loads(ran.output)
    names = {"no such file or directory": {"link-out": "is not there", "dots-out": "stays in private memory"}}
    check("stage", {case: names.get(str(got), {}).get(case, got) for case, got in answers.items()}, plain)
    assert not list((programs.base / "outside").iterdir())


def test_through_fsspec(programs: Programs, plain: Answers) -> None:
    agent, base = programs.agent, programs.base
    files = ZoneFileSystem(ZoneSession(agent.zone_map, agent.keys, agent.records))

    def code(action: Any) -> str:
        with pytest.raises(CasemateError) as caught:
            action()
        return f"`{caught.value.code}`"

    def digest(name: str) -> str:
        return hashlib.sha256(files.cat(f"{base}/in/{name}")).hexdigest()

    rows = csv.DictReader(io.StringIO(files.cat(f"{base}/in/no-rows.csv").decode()))
    many = sorted(name.rpartition("/")[2] for name in files.ls(f"{base}/in/many", detail=False))
    below = files.find(f"{base}/in/a b", withdirs=True)
    check(
        "fsspec",
        {
            "unknown": [digest("unknown.xyz"), files.size(f"{base}/in/unknown.xyz")],
            "empty": [digest("empty"), files.size(f"{base}/in/empty")],
            "empty-directory": files.ls(f"{base}/in/empty-directory"),
            "no-rows": [list(rows), rows.fieldnames],
            "names": sorted(name.rpartition("/")[2] for name in below if name != f"{base}/in/a b"),
            "many": [len(many), many[-1], sum(int(files.cat(f"{base}/in/many/{name}")) for name in many[::100])],
            "dots-inside": digest("a b/../many/../unknown.xyz"),
            "link-out": code(lambda: files.cat(f"{base}/in/link-out")),
            "dots-out": code(lambda: files.pipe(f"{base}/rw/../outside/leaked", b"x")),
        },
        plain,
    )


def test_through_encrypt_and_decrypt(programs: Programs, plain: Answers) -> None:
    clear = programs.base / "clear"
    decrypt_tree(programs.base / "in", clear, keys=programs.agent.keys, records=programs.agent.records)
    assert TABLE["link-out"]["cli"] == "decrypting leaves it out"
    assert not (clear / "link-out").is_symlink()
    ran = subprocess.run([sys.executable, "-c", PROBE, clear], capture_output=True, text=True, check=True)
    answers = json.loads(ran.stdout)
    assert {case for case in answers if answers[case] != plain[case]} == set()


@needs_fuse
def test_offsets_beyond_every_32_bit_limit(programs: Programs) -> None:
    marks = {2**31 + 5: b"beyond 2^31", 2**32 + 7: b"beyond 2^32", BIG - 3: b"end"}
    path = programs.base / "rw" / "big"
    make_big_file(path, programs.agent.keys.current_key(PATIENTS), marks)
    try:
        agent = programs.agent
        files = ZoneFileSystem(ZoneSession(agent.zone_map, agent.keys, agent.records))
        assert files.size(str(path)) == BIG
        for offset, mark in marks.items():
            assert files.cat_file(str(path), start=offset, end=offset + len(mark)) == mark
        reads = "".join(f"print(os.pread(file, {len(mark)}, {offset}).decode())\n" for offset, mark in marks.items())
        look = "import os\nprint(os.stat('rw/big').st_size)\nfile = os.open('rw/big', os.O_RDONLY)\n"
        ran = programs.python("mount", look + reads)
        assert ran.output.splitlines() == [str(BIG), *(mark.decode() for mark in marks.values())]
    finally:
        path.unlink()


def test_the_table_is_complete() -> None:
    assert {tuple(TABLE[case]) for case in CASES} == {tuple(TABLE["unknown"])}
