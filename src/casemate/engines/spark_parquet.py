"""Spark settings for Parquet Modular Encryption: our own crypto factory, which asks the agent for dataset keys.

Every Spark job of ``casemate run`` has them. They change nothing but that encrypted Parquet files can be read, that
zones with column keys are obeyed, and that a program's own ``parquet.encryption.*`` settings name datasets. Any other
Spark needs ``casemate-spark.jar`` on its class path and ``CASEMATE_AGENT_SOCKET`` in its environment beside them.
"""

from __future__ import annotations

__all__ = ["FACTORY"]

FACTORY = {
    "spark.hadoop.parquet.crypto.factory.class": "io.casemate.spark.ParquetEncryption",
    "spark.hadoop.parquet.encryption.kms.client.class": "io.casemate.spark.ParquetKeys",
}
