"""Bring what BigDL PPML wrote into a dataset: decrypted, checked and encrypted again in one pass, all of it or nothing.

No plaintext is stored on the way. The source stays as it is.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from casemate.crypto.secret import Secret
from casemate.data.bigdl import SUFFIX, open_bigdl
from casemate.data.drafts import draft, require_replaceable
from casemate.data.errors import SourceMissingError
from casemate.data.generations import GenerationRecords
from casemate.data.keys import KeyProvider
from casemate.data.manifest import ManifestFile
from casemate.data.pieces import Encrypting
from casemate.data.pool import Progress
from casemate.data.sources import PlainFile, find_sources
from casemate.data.staging import storage_errors
from casemate.data.trees import FEW_FILES, Counter, TreeResult, real_destination
from casemate.data.zones import local_uri
from casemate.errors import UsageError
from casemate.model import DatasetName

__all__ = ["import_bigdl"]

_MARKER = "_SUCCESS"


def import_bigdl(
    source: Path,
    destination: Path,
    *,
    unwrap: Sequence[Secret] | str,
    dataset: DatasetName,
    keys: KeyProvider,
    records: GenerationRecords,
    native: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TreeResult:
    """Encrypt the content of a ``.cbc`` file, or of all below a directory, into ``destination``.

    ``unwrap`` and ``native`` are as for ``open_bigdl``. Names lose their ``.cbc``; ``.meta``, checksum files and empty
    markers stay behind, and any other file is a ``UsageError``. Raises what ``open_bigdl`` and ``encrypt_tree`` raise;
    the destination is then what it was."""
    with storage_errors(destination):
        files = _encrypted_files(source)
        target = real_destination([os.fspath(source)], destination)
        require_replaceable(target, overwrite)
        location, key = local_uri(target), keys.current_key(dataset)
        previous, about = records.generation(dataset, location), f"import {source} to {location}"
        counter = Counter(sum(file.size for file in files), progress)
        durable = len(files) <= FEW_FILES
        listed, plaintext = [], 0
        with draft(target, key, records, previous, about=about, overwrite=overwrite) as new:
            new.stage.make_directories({file.path.rpartition("/")[0] for file in files})
            work = Encrypting(str(new.stage.root), location, key, secrets.token_hex(16), durable=durable)
            for file in files:
                before = plaintext

                def count(size: int) -> None:
                    nonlocal plaintext
                    plaintext += size
                    counter.add(size)

                with open_bigdl(Path(file.source), unwrap, native=native) as reader:
                    length, file_id = work.stream(file.path.removesuffix(SUFFIX), reader, count)
                counter.add(file.size - (plaintext - before))
                listed.append(ManifestFile(file.path.removesuffix(SUFFIX), length, file_id))
            new.stage.make_durable(all_at_once=not durable)
            generation = new.install(listed)
    stored = sum(file.length for file in listed)
    return TreeResult(dataset, location, len(listed), plaintext, stored, generation.number, target)


def _encrypted_files(source: Path) -> list[PlainFile]:
    """The ``.cbc`` files; raises ``UsageError`` naming the first of any other kind that holds something."""
    found = []
    for file in find_sources([os.fspath(source)]).files:
        name = file.path.rpartition("/")[2]
        if name.endswith(SUFFIX) and not name.startswith("."):
            found.append(file)
        elif name != ".meta" and not name.endswith(".crc") and not (name == _MARKER and file.size == 0):
            raise UsageError(f"{file.source}: not a {SUFFIX} file; take away what BigDL PPML did not encrypt")
    if not found:
        raise SourceMissingError(f"{source}: holds no {SUFFIX} file")
    return found
