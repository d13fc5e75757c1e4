"""Inside a SIMULATED TEE: write Parquet files anew under Parquet Modular Encryption, row group by row group.

``python tpcds_columns.py SOURCE TARGET DATASET``. Footer and columns are encrypted under the dataset's key, each column
with a file key of its own; all else is as in the plain files, so that only encryption tells the two apart.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Write every ``SOURCE/TABLE/*.parquet`` to the same place below TARGET."""
    import pyarrow.parquet as parquet

    from casemate.data.parquet import ParquetKeys

    source, target, dataset = Path(arguments[0]), Path(arguments[1]), arguments[2]
    keys = ParquetKeys(dataset)
    for path in sorted(source.glob("*/*.parquet")):
        out = target / path.relative_to(source)
        out.parent.mkdir(parents=True, exist_ok=True)
        with parquet.ParquetFile(path) as file:
            properties = keys.encryption_properties(file.schema_arrow)
            with parquet.ParquetWriter(
                out, file.schema_arrow, compression="snappy", encryption_properties=properties
            ) as writer:
                for group in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(group))


if __name__ == "__main__":
    main(sys.argv[1:])
