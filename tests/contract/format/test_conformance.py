"""The conformance kit: every reader of format v1 gets the same content out of it, and refuses its damaged files."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys

import pytest
from tests.support.conformance import KIT, VECTORS, RefusedError, kit_keys, read_with_tink

from casemate.data.errors import FileWrongDatasetError, IntegrityError, KeyDeniedError
from casemate.data.reader import EncryptedReader
from casemate.model import DatasetName

DATASET = VECTORS["dataset"]
KEYS = {entry["version"]: base64.b64decode(entry["key"]) for entry in VECTORS["keys"] if entry["dataset"] == DATASET}


def read_with_python(data: bytes) -> bytes:
    name, keys = DatasetName.parse(DATASET), kit_keys()
    with EncryptedReader(io.BytesIO(data), len(data), keys, dataset=name, name="file.csmt") as reader:
        return reader.read()


@pytest.mark.parametrize(
    "reader", [read_with_python, lambda data: read_with_tink(data, DATASET, KEYS)], ids=["casemate", "tink"]
)
@pytest.mark.parametrize("entry", VECTORS["valid"], ids=lambda entry: entry["file"])
def test_a_sound_file_has_its_content(reader, entry) -> None:
    content = reader((KIT / entry["file"]).read_bytes())
    assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["plaintext_size"], entry["plaintext_sha256"])


@pytest.mark.parametrize("entry", VECTORS["damaged"], ids=lambda entry: entry["file"])
def test_a_damaged_file_is_refused(entry) -> None:
    data = (KIT / entry["file"]).read_bytes()
    with pytest.raises((IntegrityError, KeyDeniedError, FileWrongDatasetError)) as caught:
        read_with_python(data)
    assert "file.csmt" in caught.value.message or caught.value.code == "key-denied"
    with pytest.raises(RefusedError):
        read_with_tink(data, DATASET, KEYS)


def test_the_kit_is_complete_and_what_its_generator_writes() -> None:
    assert len(VECTORS["damaged"]) >= 60
    listed = {entry["file"] for kind in ("valid", "damaged") for entry in VECTORS[kind]}
    assert {path.relative_to(KIT).as_posix() for path in KIT.rglob("*.csmt")} == listed
    script = KIT.parent / "scripts" / "generate_conformance.py"
    result = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
