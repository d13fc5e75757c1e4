"""Spark settings for Parquet Modular Encryption: our own crypto factory, which asks the agent for dataset keys.

``casemate run`` makes ``FACTORY`` for every Spark job. With it alone nothing changes but that encrypted Parquet files
can be read, and that zones with column keys are obeyed; the settings of ``write_settings`` encrypt other files too.
"""

from __future__ import annotations

from casemate.errors import UsageError
from casemate.model import ColumnKeys, DatasetName

__all__ = ["FACTORY", "write_settings"]

FACTORY = {
    "spark.hadoop.parquet.crypto.factory.class": "io.casemate.spark.ParquetEncryption",
    "spark.hadoop.parquet.encryption.kms.client.class": "io.casemate.spark.ParquetKeys",
}


def write_settings(
    dataset: DatasetName, columns: ColumnKeys | None = None, *, plaintext_footer: bool = False
) -> dict[str, str]:
    """Settings of a Spark session that encrypt every Parquet file it writes, outside zones with column keys.

    Without ``columns`` one key encrypts footer and all columns of a file (*uniform*). Files are read without settings
    beyond ``FACTORY``. The JVM needs ``casemate-spark.jar`` on its class path and ``CASEMATE_AGENT_SOCKET``.
    Raises ``UsageError`` when ``plaintext_footer`` is said here and ``columns`` says otherwise."""
    prefix = "spark.hadoop.parquet.encryption"
    if columns is None:
        own = {f"{prefix}.uniform.key": str(dataset)}
        signed = plaintext_footer
    else:
        if plaintext_footer and not columns.plaintext_footer:
            raise UsageError("plaintext_footer: the column keys say otherwise")
        listed = ";".join(f"{name}:{','.join(paths)}" for name, paths in columns.columns)
        own = {
            f"{prefix}.footer.key": str(dataset),
            f"{prefix}.column.keys": listed,
            f"{prefix}.complete.columns": "true",  # the footer's key for what is not listed, instead of none
            f"{prefix}.algorithm": columns.algorithm,
        }
        signed = columns.plaintext_footer
    return FACTORY | own | {f"{prefix}.plaintext.footer": str(signed).lower()}
