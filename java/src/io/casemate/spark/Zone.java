package io.casemate.spark;

/** A location prefix below which every byte of every file is encrypted under one dataset's key. */
record Zone(String prefix, String dataset, boolean canRead, boolean canWrite) {}
