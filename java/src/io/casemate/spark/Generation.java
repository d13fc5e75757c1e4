package io.casemate.spark;

/** The latest commit at a location, as recorded away from the storage; number 0 and no digest: none. */
record Generation(long number, String digest) {
  /** SHA-256 of nothing: what is recorded when a job deletes a committed directory, so that old copies do not return. */
  static final String DELETED = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

  boolean recorded() {
    return number > 0;
  }

  boolean deleted() {
    return DELETED.equals(digest);
  }
}
