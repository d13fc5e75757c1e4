"""Parquet Modular Encryption for PyArrow, under dataset keys: one for a file's footer, others for single columns.

A master key identifier is a dataset's name. File keys are wrapped in this process, under the dataset key that a
``KeyProvider`` hands out; Spark's ``io.casemate.spark.ParquetKeys`` writes the same text, so that files written by one
open in the other: ``casemate:parquet:v1:VERSION:`` and base64 of what ``envelope.wrap`` gives with the context
``casemate:parquet:v1:DATASET:VERSION``.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from casemate.crypto.envelope import unwrap, wrap
from casemate.crypto.errors import UnwrapError
from casemate.crypto.secret import Secret
from casemate.data.client import AgentClient
from casemate.data.errors import (
    ArrowMissingError,
    ColumnDeniedError,
    ColumnMissingError,
    FileMalformedError,
    FileTamperedError,
)
from casemate.data.keys import KeyProvider
from casemate.errors import RefusedError, UsageError
from casemate.model import ColumnKeys, DatasetName

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ParquetKeys", "unwrap_parquet_key", "wrap_parquet_key"]

_KEY_SIZE_BITS = 256
_FORMAT = "casemate:parquet:v1:"
_WRAPPED = re.compile(re.escape(_FORMAT) + r"([1-9][0-9]{0,8}):([A-Za-z0-9+/]{56,}={0,2})")
_UNFIT = re.compile(r"[,:;]|^\s|\s$")  # in a name that PyArrow puts into a list of columns


def _context(dataset: DatasetName, version: int) -> bytes:
    return f"{_FORMAT}{dataset}:{version}".encode()


def wrap_parquet_key(keys: KeyProvider, key: bytes, dataset: DatasetName) -> str:
    """``key`` (16, 24 or 32 bytes) wrapped under the newest key of ``dataset``; raises what ``keys`` raise."""
    wrapping = keys.current_key(dataset)
    wrapped = wrap(wrapping.secret, Secret(key), context=_context(dataset, wrapping.version))
    return f"{_FORMAT}{wrapping.version}:{base64.b64encode(wrapped).decode()}"


def unwrap_parquet_key(keys: KeyProvider, wrapped: str, dataset: DatasetName) -> bytes:
    """Undo ``wrap_parquet_key``. Raises ``FileMalformedError``, ``FileTamperedError``, or what ``keys`` raise."""
    match = _WRAPPED.fullmatch(wrapped)
    try:
        sealed = base64.b64decode(match[2], validate=True) if match else b""
    except binascii.Error:
        sealed = b""
    if match is None or base64.b64encode(sealed).decode() != match[2]:
        raise FileMalformedError(f"a Parquet key of {dataset} is not one that Casemate wrapped")
    wrapping = keys.key(dataset, int(match[1]))
    try:
        return unwrap(wrapping.secret, sealed, context=_context(dataset, wrapping.version)).reveal()
    except UnwrapError as exc:
        raise FileTamperedError(f"a Parquet key does not open with version {wrapping.version} of {dataset}") from exc


class ParquetKeys:
    """Makes the properties that PyArrow's readers and writers take. Keep it as long as they are in use.

    To write, ``footer`` names the dataset of the footer and of each column that ``columns`` does not name; to read, the
    file says what it needs. ``keys`` defaults to the agent of ``casemate run``. Raises ``ArrowMissingError``."""

    def __init__(
        self,
        footer: DatasetName | str | None = None,
        columns: ColumnKeys | None = None,
        *,
        keys: KeyProvider | None = None,
    ) -> None:
        try:
            import pyarrow.parquet.encryption as encryption
        except ImportError as exc:
            raise ArrowMissingError(f"PyArrow's Parquet encryption cannot be imported: {exc}") from exc
        self.footer = DatasetName.parse(footer) if isinstance(footer, str) else footer
        self.columns = columns
        self.keys: KeyProvider = keys or AgentClient.from_environment()
        self._encryption = encryption
        self._factory = encryption.CryptoFactory(lambda _config: _client(encryption.KmsClient, self))
        self._connection = encryption.KmsConnectionConfig()

    @classmethod
    def of_zone(cls, path: str) -> ParquetKeys:
        """As the job's zone at ``path`` says; raises ``ZoneAccessError``, or ``UsageError`` outside every zone."""
        agent = AgentClient.from_environment()
        try:
            zone = agent.session().zone_map().locate(path).zone
            if zone is None:
                raise UsageError(f"{path}: lies in none of the job's zones")
            return cls(zone.dataset, zone.parquet, keys=agent)
        except BaseException:
            agent.close()
            raise

    def decryption_properties(self) -> Any:
        """``decryption_properties`` for ``pq.read_table``, ``pq.ParquetFile`` and pandas; for any number of files.

        Reading a column whose dataset was refused raises ``ColumnDeniedError``; the others read as usual."""
        return self._factory.file_decryption_properties(self._connection)

    def read_table(self, source: Any, columns: Sequence[str] | None = None) -> pa.Table:
        """Read ``columns`` (top-level names; all by default) of one file, which may have others that were refused.

        PyArrow's own ``read`` of N columns looks at what describes the first N columns of a file (seen in 20), so
        that it fails when one of these was refused, asked for or not; its reader in batches, used here, does not."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(source, decryption_properties=self.decryption_properties()) as file:
            names = list(file.schema_arrow.names if columns is None else columns)
            if missing := set(names) - set(file.schema_arrow.names):
                raise UsageError(f"there is no column {min(missing)}")
            schema = pa.schema([file.schema_arrow.field(name) for name in names])
            return pa.Table.from_batches(file.iter_batches(columns=names), schema)

    def dataset_format(self) -> Any:
        """``format`` for ``ds.dataset``; reads encrypted and plain files, within the limit ``read_table`` names."""
        import pyarrow.dataset as ds

        config = ds.ParquetDecryptionConfig(self._factory, self._connection, self._encryption.DecryptionConfiguration())
        options = ds.ParquetFragmentScanOptions(decryption_config=config)
        return ds.ParquetFileFormat(default_fragment_scan_options=options)

    def encryption_properties(self, schema: pa.Schema) -> Any:
        """``encryption_properties`` for ``pq.write_table`` and ``pq.ParquetWriter``; make them anew for each file.

        Raises ``ColumnMissingError`` when a column that ``columns`` names is not in ``schema``."""
        return self._factory.file_encryption_properties(self._connection, self._configuration(schema))

    def write_options(self, schema: pa.Schema) -> Any:
        """``file_options`` for ``ds.write_dataset(..., format="parquet")``; the same for all its files."""
        import pyarrow.dataset as ds

        config = ds.ParquetEncryptionConfig(self._factory, self._connection, self._configuration(schema))
        return ds.ParquetFileFormat().make_write_options(encryption_config=config)

    def _configuration(self, schema: pa.Schema) -> Any:
        if self.footer is None:
            raise UsageError("Parquet keys: to write, name the dataset of the footer")
        # PyArrow leaves a column that is not listed in the clear, so all are.
        return self._encryption.EncryptionConfiguration(
            footer_key=str(self.footer),
            column_keys=_assigned(_leaves(schema), self.footer, self.columns),
            plaintext_footer=self.columns is not None and self.columns.plaintext_footer,
            encryption_algorithm=self.columns.algorithm if self.columns else "AES_GCM_V1",
            double_wrapping=False,  # wrapping is local: a key between would save no call
            data_key_length_bits=_KEY_SIZE_BITS,
        )

    @contextlib.contextmanager
    def _naming_columns(self, dataset: DatasetName) -> Iterator[None]:
        """Turn a refused key into ``ColumnDeniedError``, and let the agent know."""
        try:
            yield
        except (FileMalformedError, FileTamperedError):
            raise
        except RefusedError as exc:
            names = self.columns.columns_of(dataset) if self.columns else ()
            what = f"column {', '.join(names)} of {dataset}" if names else f"what is encrypted under {dataset}"
            denied = ColumnDeniedError(f"{what} cannot be read or written: {exc.code}: {exc.message}")
            if isinstance(self.keys, AgentClient):
                self.keys.report(denied)
            raise denied from exc

    def wrap(self, key: bytes, dataset: str) -> str:
        """What PyArrow asks to wrap a file's key; ``dataset`` is the master key identifier."""
        name = DatasetName.parse(dataset)
        with self._naming_columns(name):
            return wrap_parquet_key(self.keys, key, name)

    def unwrap(self, wrapped: str, dataset: str) -> bytes:
        """What PyArrow asks to unwrap a file's key."""
        name = DatasetName.parse(dataset)
        with self._naming_columns(name):
            return unwrap_parquet_key(self.keys, wrapped, name)


def _client(base: Any, keys: ParquetKeys) -> Any:
    """A ``KmsClient``; made here, since the class to extend comes with PyArrow."""

    class Client(base):  # type: ignore[misc]
        def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:
            return keys.wrap(key_bytes, master_key_identifier)

        def unwrap_key(self, wrapped_key: str, master_key_identifier: str) -> bytes:
            return keys.unwrap(wrapped_key, master_key_identifier)

    return Client()


def _leaves(schema: pa.Schema) -> list[str]:
    """The paths that ``schema``'s values have in a Parquet file, as PyArrow itself names them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    found = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [found.column(index).path for index in range(len(found))]


def _assigned(leaves: list[str], footer: DatasetName, layout: ColumnKeys | None) -> dict[str, list[str]]:
    """The leaves under each dataset; raises ``ColumnMissingError``."""
    named = {path.lower(): name for name, own in (layout.columns if layout else ()) for path in own}
    missing = set(named)
    assigned: dict[str, list[str]] = {}
    for leaf in leaves:
        if _UNFIT.search(leaf):
            raise ColumnMissingError(f"PyArrow cannot name a key for column {leaf!r}")
        parts = leaf.lower().split(".")
        ancestors = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
        found = next((path for path in ancestors if path in named), None)
        missing.discard(found or "")
        assigned.setdefault(str(named[found] if found else footer), []).append(leaf)
    if missing:
        raise ColumnMissingError(f"there is a key for column {min(missing)}, and the file has no such column")
    return assigned
