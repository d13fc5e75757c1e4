"""Archives are read into memory within bounds; what is no regular file is refused."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from casemate.attestation.collateral import bundle
from casemate.attestation.collateral.bundle import read_bundle
from casemate.attestation.collateral.errors import BundleMalformedError

FILES = {"a.json": b"{}", "sub/b.crl": b"list"}


def _tar(path: Path, mode: str = "w:gz", members: list[tarfile.TarInfo] | None = None) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for member in members or ():
            archive.addfile(member)
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_archives_are_read(mode: str, tmp_path: Path) -> None:
    assert {f.name: f.content for f in read_bundle(_tar(tmp_path / "b", mode))} == FILES


def test_zip_archives_and_directories_are_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    assert {f.name: f.content for f in read_bundle(tmp_path / "b.zip")} == FILES
    folder = tmp_path / "d"
    (folder / "sub").mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / ".hidden.new").write_bytes(b"a draft")
    assert {f.name: f.content for f in read_bundle(folder)} == FILES


def test_a_single_file_is_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(b"{}")
    assert [(f.name, f.content) for f in read_bundle(tmp_path / "c.json")] == [("c.json", b"{}")]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("evil")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(BundleMalformedError, match="evil"):
        read_bundle(_tar(tmp_path / "b.tar.gz", members=[info]))


def test_a_link_in_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link.json").symlink_to("/etc/passwd")
    with pytest.raises(BundleMalformedError, match="link"):
        read_bundle(tmp_path / "d")


def test_a_zip_with_a_link_is_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("link.json")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(BundleMalformedError, match=r"link\.json"):
        read_bundle(tmp_path / "b.zip")


def test_names_decide_nothing(tmp_path: Path) -> None:
    info = tarfile.TarInfo("../../outside.json")
    read_bundle(_tar(tmp_path / "in" / "b.tar", "w", [info]) if (tmp_path / "in").mkdir() is None else tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b.tar", "in"]


def test_bombs_are_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_TOTAL_BYTES", 1024 * 1024)
    monkeypatch.setattr(bundle, "MAX_FILE_BYTES", 512 * 1024)
    large = tarfile.TarInfo("huge.json")
    large.size = 10**9
    head = tarfile.TarInfo("x")
    (tmp_path / "header.tar").write_bytes(large.tobuf() + bytes(1024))
    with gzip.open(tmp_path / "zeros.tar.gz", "wb") as file:
        file.write(head.tobuf())
        for _ in range(40):
            file.write(bytes(1024 * 1024))
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.json", bytes(600 * 1024))
    for name in ("header.tar", "zeros.tar.gz", "b.zip"):
        try:
            assert sum(len(f.content) for f in read_bundle(tmp_path / name)) == 0  # the end of the archive
        except BundleMalformedError:
            continue


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_FILES", 1)
    with pytest.raises(BundleMalformedError, match="more than 1 files"):
        read_bundle(_tar(tmp_path / "b.tar"))


@pytest.mark.parametrize("cut", [3, 40, 100])
def test_a_damaged_archive_is_refused(cut: int, tmp_path: Path) -> None:
    for name in ("b.tar.gz", "b.zip"):
        path = tmp_path / name
        if name.endswith("zip"):
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a.json", "{}" * 100)
        else:
            _tar(path)
        path.write_bytes(path.read_bytes()[:-cut] if name.endswith("zip") else path.read_bytes()[:cut])
        with pytest.raises(BundleMalformedError):
            read_bundle(path)


def test_an_empty_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleMalformedError, match="no file"):
        read_bundle(tmp_path)
