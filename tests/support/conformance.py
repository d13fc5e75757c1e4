"""The conformance kit as tests read it: its keys, and a reader on top of Tink that knows nothing of ours."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rfc8785
import tink
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.support.memory import MemoryKeys
from tink import secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from casemate.crypto.secret import Secret
from casemate.model import DatasetName

__all__ = ["KIT", "VECTORS", "RefusedError", "kit_keys", "read_with_tink"]

KIT = Path(__file__).resolve().parents[2] / "conformance"
VECTORS: Mapping[str, Any] = json.loads((KIT / "vectors.json").read_text())


class RefusedError(Exception):
    """The independent reader says no."""


def kit_keys(*others: str) -> MemoryKeys:
    """The kit's keys, and fresh ones for ``others``."""
    keys = MemoryKeys(*others)
    for entry in sorted(VECTORS["keys"], key=lambda entry: entry["version"]):
        keys.rotate(DatasetName.parse(entry["dataset"]), Secret(base64.b64decode(entry["key"])))
    return keys


def read_with_tink(data: bytes, dataset: str, keys: Mapping[int, bytes]) -> bytes:
    """The content of a file of ``dataset``, as the specification says and PyPI's ``tink`` does it."""
    start = data[:512]
    if len(start) < 512 or start[:6] != b"CSMT\x01\x00":
        raise RefusedError("not format version 1")
    size = int.from_bytes(start[6:8], "big")
    text, padding = start[8 : 8 + size], start[8 + size :]
    if 8 + size > 512 or any(padding):
        raise RefusedError("padding")
    try:
        header = json.loads(text)
        wrapped = base64.b64decode(header["wrapped_dek"], validate=True)
        file_id = base64.b64decode(header["file_id"], validate=True)
        spelled = {"wrapped_dek": base64.b64encode(wrapped).decode(), "file_id": base64.b64encode(file_id).decode()}
        sound = (
            rfc8785.dumps(header) == text
            and header.keys() == {"alg", "dataset", "file_id", "kek", "wrapped_dek"}
            and header.items() >= spelled.items()
            and header["alg"] == "AES256-GCM-HKDF-64K"
            and header["dataset"] == dataset
            and re.fullmatch(r"[a-z0-9]([a-z0-9._-]*)/[a-z0-9]([a-z0-9._-]*)", dataset)
            and type(header["kek"]) is int
            and (len(file_id), len(wrapped)) == (16, 60)
        )
        if not sound:
            raise RefusedError("header")
        context = f"casemate:dek:v1:{dataset}:{header['kek']}:{header['file_id']}".encode()
        dek = AESGCM(keys[header["kek"]]).decrypt(wrapped[:12], wrapped[12:], context)
    except (ValueError, KeyError, TypeError, InvalidTag) as exc:
        raise RefusedError(f"header: {exc}") from exc
    try:
        with _tink(dek).new_decrypting_stream(io.BytesIO(data[512:]), start) as stream:
            content = bytes(stream.read())
    except (tink.TinkError, OSError) as exc:
        raise RefusedError(f"body: {exc}") from exc
    segments = -(-(len(data) - 512) // 65536)
    size = len(data) - 512 - 40 - 16 * segments
    if len(content) != size or (segments > 1 and (len(data) - 512) % 65536 in range(1, 17)):
        raise RefusedError("something follows the last segment")  # Tink itself passes over it
    return content


def _tink(dek: bytes) -> streaming_aead.StreamingAead:
    parameters = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
        ciphertext_segment_size=65536, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
    )
    key = tink_pb2.KeyData(
        type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
        value=aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(key_value=dek, params=parameters).SerializeToString(),
        key_material_type=tink_pb2.KeyData.SYMMETRIC,
    )
    entry = tink_pb2.Keyset.Key(key_data=key, status=tink_pb2.ENABLED, key_id=1, output_prefix_type=tink_pb2.RAW)
    keyset = tink_pb2.Keyset(primary_key_id=1, key=[entry]).SerializeToString()
    streaming_aead.register()
    return tink.proto_keyset_format.parse(keyset, secret_key_access.TOKEN).primitive(streaming_aead.StreamingAead)
