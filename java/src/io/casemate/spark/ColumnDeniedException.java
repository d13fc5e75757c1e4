package io.casemate.spark;

import org.apache.parquet.crypto.KeyAccessDeniedException;

/** A column's key was not given, or the zone's columns cannot be written so. Parquet adds the column's name around it. */
final class ColumnDeniedException extends KeyAccessDeniedException {
  private static final long serialVersionUID = 1L;

  ColumnDeniedException(RefusedException cause) {
    super(cause.getMessage(), cause);
  }
}
