package io.casemate.spark;

import org.apache.parquet.crypto.KeyAccessDeniedException;

/** A column's key was not given. Parquet wraps it into one that names the column. */
final class ColumnDeniedException extends KeyAccessDeniedException {
  private static final long serialVersionUID = 1L;

  ColumnDeniedException(RefusedException cause) {
    super(cause.getMessage(), cause);
  }
}
