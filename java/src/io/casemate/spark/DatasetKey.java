package io.casemate.spark;

/** One version of a dataset key (KEK, 32 bytes). Wraps file keys; never encrypts data itself, never prints. */
record DatasetKey(String dataset, int version, byte[] key) {
  @Override
  public String toString() {
    return dataset + "/" + version + " <" + key.length + " bytes>";
  }
}
