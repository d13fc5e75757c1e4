package io.casemate.spark;

/**
 * A location prefix below which every byte of every file is encrypted under one dataset's key.
 *
 * @param columns keys of single columns inside the zone's Parquet files, or null
 */
record Zone(String prefix, String dataset, boolean canRead, boolean canWrite, ColumnKeys columns) {}
