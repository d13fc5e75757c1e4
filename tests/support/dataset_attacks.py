"""What the owner of the storage can do to a dataset without any key, for every reader there is.

``for attack in ATTACKS: scene = Scene(...); attack.act(scene)``; a reader then has to end in a refusal that holds
``attack.codes`` and ``attack.named``. Readers read every byte of every file below ``scene.victim``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.memory import MemoryKeys, MemoryRecords

from casemate.data.dataset import encrypt_tree
from casemate.data.errors import IntegrityError
from casemate.data.manifest import manifest_path
from casemate.data.zones import local_uri
from casemate.model import DatasetName

__all__ = ["ATTACKS", "Attack", "Scene", "refusal"]

FOREIGN = DatasetName.parse("clinic/visits")


class Scene:
    """Datasets below ``root``: ``victim`` at generation 2, ``old`` (a copy of its generation 1, at no place of its
    own), ``other`` (of the same key) and ``foreign`` (of another dataset). Files of one name have one length."""

    def __init__(
        self, root: Path, scratch: Path, keys: MemoryKeys, records: MemoryRecords, dataset: DatasetName
    ) -> None:
        self.keys, self.records, self.dataset = keys, records, dataset
        self.victim, self.other = root / "victim", root / "other"
        self.old, self.foreign = scratch / "old", scratch / "foreign"
        if FOREIGN not in keys.datasets:
            keys.rotate(FOREIGN)
        self._encrypt(self.victim, scratch / "plain-1", "first", dataset)
        shutil.copytree(self.victim, self.old)
        self._encrypt(self.victim, scratch / "plain-2", "later", dataset)
        self._encrypt(self.other, scratch / "plain-3", "other", dataset)
        self._encrypt(self.foreign, scratch / "plain-4", "alien", FOREIGN)

    def _encrypt(self, target: Path, plain: Path, word: str, dataset: DatasetName) -> None:
        for name in ("b.csv", "day=1/a.csv", "day=2/a.csv", "x.csv" if word in ("other", "alien") else "c.csv"):
            path = plain / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name},{word}\n" * 100)
        encrypt_tree(plain, target, dataset=dataset, keys=self.keys, records=self.records, overwrite=True, threads=1)

    def manifest(self, directory: Path, dataset: DatasetName | None = None) -> Path:
        """The recorded manifest's file."""
        return directory / manifest_path(self.records.generation(dataset or self.dataset, local_uri(directory)))

    def replace(self, source: Path) -> None:
        """The victim becomes a copy of another directory."""
        shutil.rmtree(self.victim)
        shutil.copytree(source, self.victim)


@dataclass(frozen=True)
class Attack:
    """``named``: what the refusal has to name; ``codes``: one of these it has to carry."""

    name: str
    act: Callable[[Scene], object]
    named: str
    codes: tuple[str, ...]


def _swap(one: Path, two: Path) -> None:
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-16])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)


def _empty(scene: Scene) -> None:
    manifest = scene.manifest(scene.victim)
    start, _, rest = manifest.read_bytes().partition(b'"files":[')
    manifest.write_bytes(start + b'"files":[' + rest[rest.index(b'],"generation"') :])
    for path in (scene.victim / "b.csv", scene.victim / "c.csv"):
        path.unlink()
    for day in (1, 2):
        shutil.rmtree(scene.victim / f"day={day}")


def _other_manifest(scene: Scene) -> None:
    wanted = scene.manifest(scene.victim)
    scene.replace(scene.other)
    given = scene.victim / scene.manifest(scene.other).relative_to(scene.other)
    given.rename(wanted)


def _old_manifest(scene: Scene) -> None:
    wanted = scene.manifest(scene.victim)
    scene.replace(scene.old)
    next((scene.victim / "_casemate").iterdir()).rename(wanted)


SWAPPED, FOREIGN_FILE, MISSING = ("manifest-file-swapped",), ("manifest-file-foreign",), ("manifest-file-missing",)

ATTACKS = [
    Attack("delete", lambda s: (s.victim / "b.csv").unlink(), "victim/b.csv", MISSING),
    Attack("delete a directory", lambda s: shutil.rmtree(s.victim / "day=2"), "victim/day=2", MISSING),
    Attack("duplicate", lambda s: shutil.copy(s.victim / "b.csv", s.victim / "d.csv"), "victim/d.csv", FOREIGN_FILE),
    Attack(
        "swap between directories",
        lambda s: _swap(s.victim / "day=1/a.csv", s.victim / "day=2/a.csv"),
        "a.csv",
        SWAPPED,
    ),
    Attack(
        "swap between datasets under the same key",
        lambda s: _swap(s.victim / "b.csv", s.other / "b.csv"),
        "victim/b.csv",
        SWAPPED,
    ),
    Attack(
        "old version of one file", lambda s: shutil.copy(s.old / "b.csv", s.victim / "b.csv"), "victim/b.csv", SWAPPED
    ),
    Attack("old version of the whole dataset", lambda s: s.replace(s.old), "victim", ("manifest-rolled-back",)),
    Attack("old version under the new name", _old_manifest, "victim", ("manifest-rolled-back",)),
    Attack(
        "foreign file with a valid header",
        lambda s: shutil.copy(s.other / "x.csv", s.victim / "x.csv"),
        "victim/x.csv",
        FOREIGN_FILE,
    ),
    Attack(
        "foreign file of another dataset",
        lambda s: shutil.copy(s.foreign / "x.csv", s.victim / "x.csv"),
        "victim/x.csv",
        (*FOREIGN_FILE, "file-wrong-dataset"),
    ),
    Attack(
        "plain file",
        lambda s: (s.victim / "x.csv").write_text("a,b\n" * 200),
        "victim/x.csv",
        (*FOREIGN_FILE, "file-malformed", "file-truncated"),
    ),
    Attack("manifest of no file", _empty, "victim", ("manifest-tampered",)),
    Attack("empty manifest", lambda s: s.manifest(s.victim).write_bytes(b""), "victim", ("manifest-tampered",)),
    Attack("manifest of another dataset", _other_manifest, "victim", ("manifest-tampered", "manifest-rolled-back")),
    Attack("no manifest", lambda s: s.manifest(s.victim).unlink(), "victim", ("manifest-missing",)),
    Attack("cut", lambda s: _cut(s.victim / "b.csv"), "victim/b.csv", (*SWAPPED, "file-truncated")),
    Attack("one bit", lambda s: _flip(s.victim / "b.csv"), "victim/b.csv", ("file-tampered",)),
]


def refusal(read: Callable[[], object]) -> str:
    """The refusal a reader ended in, with its code; empty when it read everything."""
    try:
        read()
    except IntegrityError as exc:
        return f"{exc.code}: {exc}"
    except Exception as exc:  # of py4j, with the refusal somewhere in it
        return str(exc)
    return ""
