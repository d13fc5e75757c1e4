package io.casemate.spark;

/** Some decrypted bytes and where in the file they belong. */
final class Window {
  private byte[] bytes = new byte[0];
  private long start;
  private int size;

  boolean holds(long position) {
    return position >= start && position < start + size;
  }

  long end() {
    return start + size;
  }

  /** Copies what is here from file position {@code from} on, at most {@code wanted} bytes. */
  int copy(long from, byte[] out, int offset, int wanted) {
    int skip = (int) (from - start);
    int count = Math.min(wanted, size - skip);
    System.arraycopy(bytes, skip, out, offset, count);
    return count;
  }

  /** Decrypts segments {@code first} to {@code end - 1} into here. */
  void read(SegmentReader segments, long first, long end) throws java.io.IOException {
    segments.fetch(first, end, false);
    try {
      for (long index = first; index < end; index++) {
        add(segments, first, end, index);
      }
    } finally {
      segments.release();
    }
  }

  /** Decrypts one segment that was fetched. */
  void take(SegmentReader segments, long index) throws java.io.IOException {
    add(segments, index, index + 1, index);
  }

  private void add(SegmentReader segments, long first, long end, long index) throws java.io.IOException {
    if (index == first) {
      size = 0;
      int room = (int) (SegmentCipher.plaintextStart(end - 1) - SegmentCipher.plaintextStart(first))
          + segments.plaintextSize(end - 1);
      if (bytes.length < room) {
        bytes = new byte[room];
      }
      start = SegmentCipher.plaintextStart(first);
    }
    int done = (int) (SegmentCipher.plaintextStart(index) - start);
    int count = segments.decrypt(index, bytes, done);
    size = done + count;
  }
}
