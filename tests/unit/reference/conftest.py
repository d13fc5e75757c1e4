"""Signature files of enclaves, made here, and real build inputs where they are at hand."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Real evidence lies beside the repository, not in it: `CASEMATE_VECTORS`, or `shared/vectors` next to it."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "vectors"
    folder = Path(os.environ.get("CASEMATE_VECTORS", beside))
    if not folder.is_dir():
        pytest.skip(f"no real evidence at {folder}; set CASEMATE_VECTORS")
    return folder


def build_sigstruct(key: rsa.RSAPrivateKey, mrenclave: bytes, product_id: int = 3, svn: int = 7) -> bytes:
    """A SIGSTRUCT as an enclave's signer writes it."""
    head = bytes.fromhex("06000000e10000000000010000000000") + struct.pack("<II", 0, 0x20260301)
    head += bytes.fromhex("01010000600000006000000001000000") + bytes(88)
    body = bytes(28) + bytes(32) + mrenclave + bytes(32) + struct.pack("<HH", product_id, svn)
    modulus = key.public_key().public_numbers().n.to_bytes(384, "little")
    signature = key.sign(head + body, padding.PKCS1v15(), SHA256())[::-1]
    return head + modulus + struct.pack("<I", 3) + signature + body + bytes(12) + bytes(768)


@pytest.fixture(scope="session")
def enclave_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=3, key_size=3072)


@pytest.fixture(scope="session")
def make_sigstruct(enclave_key: rsa.RSAPrivateKey) -> Callable[..., bytes]:
    def make(mrenclave: bytes = bytes([9] * 32), key: rsa.RSAPrivateKey | None = None) -> bytes:
        return build_sigstruct(key or enclave_key, mrenclave)

    return make
