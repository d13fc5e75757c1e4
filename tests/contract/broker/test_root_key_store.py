"""What every root-key store promises. A new store gets a subclass with its ``store`` fixture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from casemate.broker.errors import RootKeyLockedError, RootKeyMissingError
from casemate.broker.rootkey import FileRootKeyStore, RootKeyStore
from casemate.crypto.errors import UnwrapError
from casemate.crypto.secret import Secret

KEY = Secret.random()
PASSPHRASE = Secret(b"correct horse battery staple")


class RootKeyStoreContract:
    """Subclasses provide ``store`` and ``other``: two stores with different root keys."""

    def test_what_was_wrapped_unwraps(self, store: RootKeyStore) -> None:
        for key in (KEY, Secret(b"x"), Secret(b"y" * 5000)):
            assert store.unwrap(store.wrap(key, context=b"a"), context=b"a") == key

    def test_wrapping_twice_gives_two_blobs_and_neither_shows_the_key(self, store: RootKeyStore) -> None:
        first, second = store.wrap(KEY, context=b"a"), store.wrap(KEY, context=b"a")
        assert first != second
        assert KEY.reveal() not in first

    def test_a_blob_does_not_open_for_another_context(self, store: RootKeyStore) -> None:
        wrapped = store.wrap(KEY, context=b"casemate:kek:v1:a/b:1")
        for context in (b"", b"casemate:kek:v1:a/b:2", b"casemate:job-ca:v1:a/b:1"):
            with pytest.raises(UnwrapError):
                store.unwrap(wrapped, context=context)

    def test_a_blob_of_another_root_key_does_not_open(self, store: RootKeyStore, other: RootKeyStore) -> None:
        with pytest.raises(UnwrapError):
            store.unwrap(other.wrap(KEY, context=b"a"), context=b"a")

    def test_a_blob_with_any_byte_changed_or_cut_off_does_not_open(self, store: RootKeyStore) -> None:
        wrapped = store.wrap(KEY, context=b"a")
        for place in range(len(wrapped)):
            changed = bytearray(wrapped)
            changed[place] ^= 1
            with pytest.raises(UnwrapError):
                store.unwrap(bytes(changed), context=b"a")
            with pytest.raises(UnwrapError):
                store.unwrap(wrapped[:place], context=b"a")


class TestFileStore(RootKeyStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> RootKeyStore:
        FileRootKeyStore.create(tmp_path / "root.key.json", PASSPHRASE)
        return FileRootKeyStore.open(tmp_path / "root.key.json", PASSPHRASE)

    @pytest.fixture
    def other(self, tmp_path: Path) -> RootKeyStore:
        return FileRootKeyStore.create(tmp_path / "other.key.json", PASSPHRASE)


def test_a_wrong_passphrase_says_so(tmp_path: Path) -> None:
    path = tmp_path / "root.key.json"
    FileRootKeyStore.create(path, PASSPHRASE)
    for wrong in (b"wrong", b"correct horse battery stapl\xff", b""):
        with pytest.raises(RootKeyLockedError):
            FileRootKeyStore.open(path, Secret(wrong))


def test_a_missing_file_is_another_error_and_an_existing_one_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "root.key.json"
    with pytest.raises(RootKeyMissingError):
        FileRootKeyStore.open(path, PASSPHRASE)
    FileRootKeyStore.create(path, PASSPHRASE)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        FileRootKeyStore.create(path, PASSPHRASE)
    assert path.read_bytes() == before


def test_the_file_is_private_and_any_change_to_it_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "root.key.json"
    FileRootKeyStore.create(path, PASSPHRASE)
    assert path.stat().st_mode & 0o777 == 0o600
    good = json.loads(path.read_text())
    for member, value in (
        ("n", 16384),
        ("n", 2**40),
        ("r", 0),
        ("salt", good["salt"][::-1]),
        ("salt", ""),
        ("wrapped", good["wrapped"][:-8] + "AAAAAAA="),
        ("wrapped", None),
    ):
        path.write_text(json.dumps({**good, member: value}))
        with pytest.raises(RootKeyLockedError):
            FileRootKeyStore.open(path, PASSPHRASE)
    for text in ("", "{}", "[]", "not json"):
        path.write_text(text)
        with pytest.raises(RootKeyLockedError):
            FileRootKeyStore.open(path, PASSPHRASE)
