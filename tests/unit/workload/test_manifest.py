"""The workload manifest: strict, and one digest over everything that matters."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.kbs_double import Authority
from tests.unit.workload.conftest import make_manifest

from casemate.model import Access, DatasetName
from casemate.workload.build import zone_entry
from casemate.workload.bundle import verified_copies, write_bundle
from casemate.workload.errors import (
    BundleMissingError,
    ManifestMalformedError,
    ProgramChangedError,
    RuntimeMismatchError,
)
from casemate.workload.manifest import MAX_MANIFEST_SIZE, Runtime, WorkloadManifest
from casemate.workload.runtime import check_runtime, current_runtime, installed_packages

COLUMNS = {"columns": {"a/b": ["x", "y.z"]}, "plaintext_footer": False, "algorithm": "AES_GCM_V1"}


@pytest.fixture(scope="module")
def value(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("source")
    (root / "job.py").write_text("print('hello')\n")
    (root / "lib.py").write_text("X = 1\n")
    manifest, _ = make_manifest(
        root / "job.py",
        "https://127.0.0.1:7443",
        Authority().pem,
        files={"lib.py": root / "lib.py"},
        environment={"TZ": "UTC"},
        engine_settings={"conf": {"a": "b"}},
    )
    return manifest.to_json()


def test_the_digest_is_sha384_over_canonical_json(value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=3, ensure_ascii=True)
    manifest = WorkloadManifest.parse(text)
    plain = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert manifest.digest() == hashlib.sha384(plain.encode()).hexdigest()
    assert manifest.to_json() == value
    assert WorkloadManifest.parse(manifest.canonical()) == manifest


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ("name", "other.py"),
        ("program.sha256", "0" * 64),
        ("files.0.sha256", "0" * 64),
        ("arguments.0", "other"),
        ("command.0", "python3"),
        ("environment.TZ", "CET"),
        ("engine_settings.conf.a", "c"),
        ("plaintext_output", "allow"),
        ("strict", False),
        ("zones.0.access", "read-write"),
        ("zones.0.parquet", COLUMNS),
        ("runtime.lock_sha256", "0" * 64),
        ("working_directory", "/elsewhere"),
        ("brokers.default.url", "https://127.0.0.1:7444"),
    ],
)
def test_every_member_changes_the_digest(value: dict[str, Any], path: str, new: Any) -> None:
    changed = with_member(value, path, new)
    assert WorkloadManifest.from_json(changed).digest() != WorkloadManifest.from_json(value).digest()


@pytest.mark.parametrize(
    ("path", "new", "named"),
    [
        ("version", 2, "version"),
        ("version", True, "version"),
        ("extra", 1, "extra"),
        ("engine", "../spark", "engine"),
        ("program.path", "../job.py", "program.path"),
        ("program.path", "/job.py", "program.path"),
        ("program.path", "a//b", "program.path"),
        ("program.path", "a\nb", "program.path"),
        ("program.sha256", "0" * 63, "program.sha256"),
        ("program.sha256", "A" * 64, "program.sha256"),
        ("program.mode", "x", "mode"),
        ("files.0.path", "job.py", "twice"),
        ("files.0.path", "job.py/lib.py", "directory"),
        ("command", [], "command"),
        ("command", "python", "command"),
        ("arguments.0", 1, "arguments[0]"),
        ("arguments.0", "a\0b", "arguments[0]"),
        ("arguments.0", "x" * 40_000, "arguments[0]"),
        ("working_directory", "relative", "working_directory"),
        ("environment", {"CASEMATE_AGENT_SOCKET": "x"}, "environment"),
        ("environment", {"LD_PRELOAD": "x"}, "environment"),
        ("environment", {"_SPARK_AUTH_SECRET": "x"}, "environment"),
        ("environment", {"A B": "x"}, "environment"),
        ("environment", {"A": 1}, "environment.A"),
        ("engine_settings", [], "engine_settings"),
        ("engine_settings", {"x": float("nan")}, "manifest"),
        ("plaintext_output", "maybe", "plaintext_output"),
        ("strict", 1, "strict"),
        ("strict", "true", "strict"),
        ("zones.0.prefix", "file:///a/../b", "prefix"),
        ("zones.0.prefix", "file:///a/", "prefix"),
        ("zones.0.dataset", "patients", "dataset"),
        ("zones.0.access", "append", "access"),
        ("zones.0.broker", "other", "broker"),
        ("zones.0.parquet", {"columns": {"a/b": ["x"]}}, "zones[0].parquet"),
        ("zones.0.parquet", {**COLUMNS, "columns": {"a/b": ["x"], "c/d": ["x"]}}, "twice"),
        ("zones.0.parquet", {**COLUMNS, "columns": {"b": ["x"]}}, "dataset"),
        ("zones.0.parquet", {**COLUMNS, "columns": {"a/b": "x"}}, "columns"),
        ("zones.0.parquet", {**COLUMNS, "algorithm": "ROT13"}, "algorithm"),
        ("brokers.default.url", "http://127.0.0.1:7443", "url"),
        ("brokers.default.url", "https://u@127.0.0.1", "url"),
        ("brokers.default.url", "https://127.0.0.1:99999", "url"),
        ("brokers.default.url", "https://127.0.0.1/", "url"),
        ("brokers.default.ca_sha256", "0" * 64, "ca_sha256"),
        ("brokers.default.ca_pem", "nonsense", "ca_pem"),
        ("coordinator", "other", "coordinator"),
        ("runtime", {}, "runtime"),
    ],
)
def test_anything_unexpected_is_refused_by_name(value: dict[str, Any], path: str, new: Any, named: str) -> None:
    with pytest.raises(ManifestMalformedError, match=named.replace("[", r"\[")):
        WorkloadManifest.from_json(with_member(value, path, new))


def test_a_missing_member_is_refused(value: dict[str, Any]) -> None:
    for name in value:
        with pytest.raises(ManifestMalformedError, match=name):
            WorkloadManifest.from_json({k: v for k, v in value.items() if k != name})


@pytest.mark.parametrize(
    "text", ["", "[]", "1", "{", '{"a":1,"a":2}', "[" * 100_000, '"\\ud800"', "x" * (MAX_MANIFEST_SIZE + 1)]
)
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestMalformedError):
        WorkloadManifest.parse(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ),
    st.data(),
)
def test_any_value_in_any_place_is_read_or_refused(replacement: Any, data: st.DataObject) -> None:
    base = _SAMPLE.to_json()
    name = data.draw(st.sampled_from(sorted(base)))
    changed = {**base, name: replacement}
    try:
        WorkloadManifest.from_json(changed)
    except ManifestMalformedError:
        return


def test_two_zones_in_one_place_are_refused(value: dict[str, Any]) -> None:
    twice = copy.deepcopy(value)
    twice["zones"].append({**twice["zones"][0], "dataset": "hospital/other"})
    with pytest.raises(ManifestMalformedError, match="same place"):
        WorkloadManifest.from_json(twice)


def test_one_dataset_has_one_broker(value: dict[str, Any]) -> None:
    two = copy.deepcopy(value)
    two["brokers"]["second"] = two["brokers"]["default"]
    two["zones"].append({**two["zones"][0], "prefix": "file:///elsewhere", "broker": "second"})
    with pytest.raises(ManifestMalformedError, match="two brokers"):
        WorkloadManifest.from_json(two)
    two["zones"][-1]["dataset"] = "hospital/other"
    two["zones"][-1]["parquet"] = {**COLUMNS, "columns": {two["zones"][0]["dataset"]: ["x"]}}
    with pytest.raises(ManifestMalformedError, match="two brokers"):
        WorkloadManifest.from_json(two)


def test_columns_bring_their_datasets_which_a_job_may_do_without(value: dict[str, Any]) -> None:
    manifest = WorkloadManifest.from_json(with_member(value, "zones.0.parquet", COLUMNS))
    dataset, access = DatasetName("a", "b"), manifest.zones[0].zone.access
    assert manifest.datasets_of("default")[dataset] is access
    assert dataset not in manifest.datasets_of("default", columns=False)
    assert WorkloadManifest.parse(manifest.canonical()) == manifest


def test_zones_of_one_dataset_need_their_access_together(tmp_path: Path, program: Path) -> None:
    dataset = DatasetName("hospital", "patients")
    zones = [zone_entry(dataset, str(tmp_path / n), a) for n, a in (("a", Access.READ), ("b", Access.WRITE))]
    manifest, _ = make_manifest(program, "https://127.0.0.1:1", Authority().pem, zones=zones)
    assert manifest.datasets_of("default") == {dataset: Access.READ_WRITE}


# --- the bundle ---


def test_a_changed_byte_in_any_file_is_named(tmp_path: Path, program: Path) -> None:
    lib = program.with_name("lib.py")
    lib.write_text("X = 1\n")
    files = {"pkg/lib.py": lib}
    manifest, sources = make_manifest(program, "https://127.0.0.1:1", Authority().pem, files=files)
    bundle = tmp_path / "bundle"
    write_bundle(bundle, manifest, sources)
    assert verified_copies(manifest, bundle, tmp_path / "good").read_text() == program.read_text()
    for name in ("job.py", "pkg/lib.py"):
        path = bundle / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b"#")
        with pytest.raises(ProgramChangedError, match=rf"{name}: expected SHA-256 \w+…, got \w+…"):
            verified_copies(manifest, bundle, tmp_path / f"bad-{path.name}")
        path.write_bytes(content)


def test_the_copy_is_what_was_checked_and_nobody_else_can_read_it(tmp_path: Path, program: Path) -> None:
    manifest, sources = make_manifest(program, "https://127.0.0.1:1", Authority().pem)
    write_bundle(tmp_path / "bundle", manifest, sources)
    (tmp_path / "private").mkdir(mode=0o700)
    copy_of_program = verified_copies(manifest, tmp_path / "bundle", tmp_path / "private" / "bundle")
    (tmp_path / "bundle" / "job.py").write_text("changed afterwards")
    assert copy_of_program.read_text() == "print('hello')\n"
    assert copy_of_program.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "dangling"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, program: Path, kind: str) -> None:
    import os

    manifest, sources = make_manifest(program, "https://127.0.0.1:1", Authority().pem)
    bundle = tmp_path / "bundle"
    write_bundle(bundle, manifest, sources)
    path = bundle / "job.py"
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    with pytest.raises(BundleMissingError, match=r"job\.py"):
        verified_copies(manifest, bundle, tmp_path / "private")


def test_a_source_that_changed_since_is_not_bundled(tmp_path: Path, program: Path) -> None:
    manifest, sources = make_manifest(program, "https://127.0.0.1:1", Authority().pem)
    program.write_text("changed")
    with pytest.raises(ProgramChangedError):
        write_bundle(tmp_path / "bundle", manifest, sources)


# --- the runtime ---


def test_this_runtime_is_this_runtime() -> None:
    check_runtime(current_runtime())
    assert any(item.startswith("cryptography==") for item in installed_packages())


@pytest.mark.parametrize("name", ["python", "casemate", "lock_sha256"])
def test_another_runtime_is_refused(name: str) -> None:
    other = {**current_runtime().to_json(), name: "0" * 64}
    with pytest.raises(RuntimeMismatchError, match=f"{name}: expected 0000"):
        check_runtime(Runtime(**other))


def with_member(value: dict[str, Any], path: str, new: Any) -> dict[str, Any]:
    changed = copy.deepcopy(value)
    place: Any = changed
    *parents, last = path.split(".")
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if isinstance(place, list):
        place[int(last)] = new
    else:
        place[last] = new
    return changed


def _sample() -> WorkloadManifest:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        program = Path(name) / "job.py"
        program.write_text("")
        return make_manifest(program, "https://127.0.0.1:1", Authority().pem)[0]


_SAMPLE = _sample()
