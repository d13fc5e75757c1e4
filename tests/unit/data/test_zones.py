from __future__ import annotations

from pathlib import Path

import pytest

from casemate.data.errors import OutsideZonesError, ZoneAccessError
from casemate.data.zones import ZoneMap, is_within, local_path, local_uri, normalise
from casemate.errors import UsageError
from casemate.model import Access, DatasetName, Zone

DATASET = DatasetName.parse("hospital/patients")
OTHER = DatasetName.parse("hospital/report")


def zone(prefix: str, access: Access = Access.READ_WRITE, dataset: DatasetName = DATASET) -> Zone:
    return Zone(prefix, dataset, access)


def lexical(*zones: Zone, **options: object) -> ZoneMap:
    return ZoneMap(zones, working_directory="/srv", realpath=lambda path: path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("file:///a/b", "file:///a/b"),
        ("file:/a/b", "file:///a/b"),
        ("FILE:///a/b/", "file:///a/b"),
        ("local:///a", "file:///a"),
        ("/a//b/./c/", "file:///a/b/c"),
        ("/a/../../b", "file:///b"),
        ("/a/b/..", "file:///a"),
        ("a/../b", "file:///srv/b"),
        (".", "file:///srv"),
        ("./x", "file:///srv/x"),
        ("..", "file:///"),
        ("/", "file:///"),
        ("file:///", "file:///"),
        ("/a%2e%2e/b%20c", "file:///a%2e%2e/b%20c"),
        ("/a b/ü?#:", "file:///a b/ü?#:"),
        ("~/x", "file:///srv/~/x"),
        ("a:b", "file:///srv/a:b"),
        ("/line\nbreak", "file:///line\nbreak"),
        ("s3a://Bucket/a/../b/", "s3a://bucket/b"),
        ("S3A://bucket", "s3a://bucket"),
        ("s3a://bucket/", "s3a://bucket"),
        ("hdfs://nn:8020//a", "hdfs://nn:8020/a"),
    ],
)
def test_one_place_has_one_spelling(text: str, uri: str) -> None:
    assert normalise(text, working_directory="/srv") == uri
    assert normalise(uri) == uri


@pytest.mark.parametrize("text", ["", "a\0b", "file://host/a", "s3a:///a", "hdfs:///a", "/bad\udcff"])
def test_text_that_is_no_path_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        normalise(text)


def test_a_neighbour_with_the_same_beginning_is_not_within() -> None:
    assert is_within("file:///vault/a", "file:///vault")
    assert is_within("file:///vault", "file:///vault")
    assert not is_within("file:///vault2", "file:///vault")
    assert not is_within("file:///", "file:///vault")
    assert is_within("file:///x", "file:///")
    assert local_path("file:///a b") == "/a b"
    assert local_path("s3a://bucket/a") is None


@pytest.mark.parametrize(
    "text", ["/vault/x", "file:/vault/x", "/plain/../vault/x", "../vault//x", "/vault/./x/", "/vault"]
)
def test_every_spelling_of_a_zones_path_is_in_the_zone(text: str) -> None:
    assert lexical(zone("file:///vault")).resolve_write(text) == zone("file:///vault")


@pytest.mark.parametrize("text", ["/vault/../plain", "/vault2/x", "/", "x", "s3a://vault/x", "/vault%2fx"])
def test_what_is_outside_every_zone_is_not_written_but_may_be_read(text: str) -> None:
    zones = lexical(zone("file:///vault"))
    assert zones.resolve_read(text) is None
    with pytest.raises(OutsideZonesError):
        zones.resolve_write(text)
    assert lexical(zone("file:///vault"), plaintext_output="allow").resolve_write(text) is None


def test_access_is_what_the_zone_says() -> None:
    zones = lexical(zone("file:///in", Access.READ), zone("file:///out", Access.WRITE))
    assert zones.resolve_read("/in/x")
    assert zones.resolve_write("/out/x")
    with pytest.raises(ZoneAccessError):
        zones.resolve_write("/in/x")
    with pytest.raises(ZoneAccessError):
        zones.resolve_read("/out/x")


def test_plaintext_output_does_not_open_a_read_zone_for_writing() -> None:
    with pytest.raises(ZoneAccessError):
        lexical(zone("file:///in", Access.READ), plaintext_output="allow").resolve_write("/in/x")


def test_the_longest_prefix_wins_whatever_the_order() -> None:
    outer, inner = zone("file:///v"), zone("file:///v/deep", Access.READ, OTHER)
    for zones in (lexical(outer, inner), lexical(inner, outer)):
        assert zones.resolve_read("/v/deep/x") == inner
        assert zones.resolve_read("/v/deeper") == outer
        assert zones.resolve_read("/v/deep/../x") == outer


def test_a_directory_around_another_zone_is_not_deleted_or_moved() -> None:
    zones = lexical(zone("file:///v"), zone("file:///v/deep", Access.READ, OTHER), plaintext_output="allow")
    for path in ("/v", "/"):
        with pytest.raises(ZoneAccessError):
            zones.write_tree(path)
    assert zones.write_tree("/v/else").zone


def test_private_memory_may_be_written_in_the_clear() -> None:
    zones = lexical(zone("file:///v"), private_prefixes=["file:///dev/shm/tee"])
    assert zones.resolve_write("/dev/shm/tee/spill") is None
    for path in ("/dev/shm/tee2", "/dev/shm/tee/../x", "/dev/shm"):
        with pytest.raises(OutsideZonesError):
            zones.resolve_write(path)


def test_manifests_are_not_for_programs() -> None:
    zones = lexical(zone("file:///v"))
    for path in (
        "/v/_casemate",
        "/v/_casemate/manifest-0000000001.json",
        "/v/a/_casemate/x",
        "/v/_casemate/../_casemate",
    ):
        for resolve in (zones.resolve_read, zones.resolve_write, zones.locate):
            with pytest.raises(ZoneAccessError):
                resolve(path)
    assert zones.resolve_read("/v/my_casemate")


@pytest.mark.parametrize("prefix", ["file:///v/", "/v", "file:///a/../v", "file:/v", "S3A://b/x", "v"])
def test_a_prefix_that_is_not_normalised_is_a_usage_error(prefix: str) -> None:
    with pytest.raises(UsageError):
        lexical(zone(prefix))


def test_two_zones_at_one_place_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="same place"):
        lexical(zone("file:///v"), zone("file:///v", Access.READ))
    with pytest.raises(UsageError):
        lexical(plaintext_output="maybe")


# Symbolic links, on a real disk


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    for name in ("vault/patients", "vault/other", "plain", "private"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("vault/patients/a", "vault/patients/b", "vault/other/a", "plain/x"):
        (tmp_path / name).touch()
    return tmp_path.resolve()


def real(disk: Path, **options: object) -> ZoneMap:
    return ZoneMap(
        [zone(local_uri(disk / "vault/patients")), zone(local_uri(disk / "vault/other"), dataset=OTHER)],
        private_prefixes=[local_uri(disk / "private")],
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("vault/patients/link", "plain"),  # out of the zone
        ("vault/patients/link", "vault/patients/b"),  # another file in the file's place
        ("vault/patients/link", "vault/other/a"),  # another dataset
        ("vault/patients/link", "nowhere"),  # a target to be
    ],
)
def test_no_link_below_a_prefix_is_followed(disk: Path, link: str, target: str) -> None:
    (disk / link).symlink_to(disk / target)
    for options in ({}, {"plaintext_output": "allow"}):
        zones = real(disk, **options)
        for path in (disk / link, disk / link / "x"):
            for resolve in (zones.resolve_read, zones.resolve_write):
                with pytest.raises(ZoneAccessError, match="symbolic link"):
                    resolve(str(path))


def test_a_link_from_outside_into_a_zone_leads_to_the_zone(disk: Path) -> None:
    (disk / "plain/alias").symlink_to(disk / "vault/patients")
    located = real(disk).write(str(disk / "plain/alias/a"))
    assert located.uri == local_uri(disk / "vault/patients/a")
    assert located.zone
    assert located.zone.dataset == DATASET
    with pytest.raises(ZoneAccessError):
        real(disk).locate(str(disk / "plain/alias/_casemate/x"))


def test_a_prefix_may_itself_be_reached_through_a_link(disk: Path) -> None:
    (disk / "home").symlink_to(disk / "vault")
    linked = zone(f"file://{disk}/home/patients")
    zones = ZoneMap([linked])
    for path in ("home/patients/a", "vault/patients/a"):
        assert zones.read(str(disk / path)).uri == f"file://{disk}/home/patients/a"
    with pytest.raises(UsageError, match="same place"):
        ZoneMap([linked, zone(local_uri(disk / "vault/patients"))])


def test_a_prefix_that_becomes_a_link_later_is_refused(disk: Path) -> None:
    zones = real(disk)
    (disk / "vault/patients").rename(disk / "vault/moved")
    (disk / "vault/patients").symlink_to(disk / "plain")
    with pytest.raises(ZoneAccessError):
        zones.resolve_write(str(disk / "vault/patients/new"))


def test_a_link_out_of_private_memory_is_not_private(disk: Path) -> None:
    (disk / "private/link").symlink_to(disk / "plain")
    with pytest.raises(OutsideZonesError):
        real(disk).resolve_write(str(disk / "private/link/x"))
    assert real(disk).resolve_write(str(disk / "private/x")) is None


def test_a_relative_path_is_taken_from_the_working_directory(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zones = real(disk)
    monkeypatch.chdir(disk / "vault")
    assert zones.read("patients/a").uri == local_uri(disk / "vault/patients/a")
    monkeypatch.chdir(disk / "plain")
    assert zones.read("../vault/patients/a").zone
