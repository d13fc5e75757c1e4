package io.casemate.spark;

import java.io.EOFException;
import java.io.IOException;
import javax.crypto.AEADBadTagException;
import org.apache.hadoop.fs.FSDataInputStream;

/** Fetches and decrypts segments of one file, and says what is wrong with those that are bad. Not thread-safe. */
final class SegmentReader {
  /** Most segments to fetch at once; half a megabyte, below the humongous objects of G1. */
  static final int MAX_FETCH = 8;

  private final FSDataInputStream stored;
  private final String name;
  private final SegmentCipher cipher;
  private final Agent agent;
  private final long length;
  private final long storedLength;
  private final long last;
  private boolean endAuthentic;
  private byte[] ciphertext = new byte[0];

  SegmentReader(FSDataInputStream stored, String name, SegmentCipher cipher, long storedLength, Agent agent) {
    this.stored = stored;
    this.name = name;
    this.cipher = cipher;
    this.agent = agent;
    this.storedLength = storedLength;
    this.length = SegmentCipher.plaintextSize(storedLength);
    this.last = (storedLength - Preamble.SIZE_BYTES - 1) / SegmentCipher.SEGMENT_SIZE_BYTES;
  }

  /** The index of the last segment. */
  long last() {
    return last;
  }

  int plaintextSize(long index) {
    return (int) (Math.min(SegmentCipher.plaintextStart(index + 1), length) - SegmentCipher.plaintextStart(index));
  }

  private long storedEnd(long index) {
    return Math.min(SegmentCipher.storedStart(index + 1), storedLength);
  }

  /** Brings the ciphertext of segments {@code first} to {@code end - 1} into memory. */
  void fetch(long first, long end, boolean positioned) throws IOException {
    long from = SegmentCipher.storedStart(first);
    int size = (int) (storedEnd(end - 1) - from);
    if (ciphertext.length < size) {
      int limit = MAX_FETCH * SegmentCipher.SEGMENT_SIZE_BYTES;
      ciphertext = new byte[Math.max(size, Math.min(2 * ciphertext.length, limit))];
    }
    try {
      if (positioned) {
        stored.readFully(from, ciphertext, 0, size);
      } else {
        if (stored.getPos() != from) {
          stored.seek(from);
        }
        stored.readFully(ciphertext, 0, size);
      }
    } catch (EOFException e) {
      throw agent.report(new IntegrityException("file-truncated", name, "ends within segment " + (end - 1), e));
    }
  }

  /** Decrypts fetched segments; {@code fetched} is the index of the first one that was fetched. */
  int decrypt(long first, long end, long fetched, byte[] out, int offset) throws IOException {
    int done = 0;
    for (long index = first; index < end; index++) {
      int from = (int) (SegmentCipher.storedStart(index) - SegmentCipher.storedStart(fetched));
      int size = (int) (storedEnd(index) - SegmentCipher.storedStart(index));
      try {
        cipher.decrypt(index, index == last, ciphertext, from, size, out, offset + done);
      } catch (AEADBadTagException e) {
        throw agent.report(badSegment(index, from, size, e));
      }
      endAuthentic |= index == last;
      done += size - SegmentCipher.TAG_SIZE_BYTES;
    }
    return done;
  }

  private IntegrityException badSegment(long index, int from, int size, AEADBadTagException cause) {
    if (index == last && size > SegmentCipher.TAG_SIZE_BYTES) {
      try {
        cipher.decrypt(index, false, ciphertext, from, size, new byte[size], 0);
        return new IntegrityException(
            "file-truncated", name, "ends after segment " + index + ", which is not its last");
      } catch (AEADBadTagException e) {
        // not an inner segment either: changed
      }
    }
    String which = "segment " + index + (index == last ? ", the last," : "");
    return new IntegrityException(
        "file-tampered", name, which + " does not authenticate: changed, moved, cut or extended", cause);
  }

  /** Whoever is told that the file ends here must not have been told so by somebody who cut it. */
  void authenticateEnd() throws IOException {
    if (!endAuthentic) {
      fetch(last, last + 1, true);
      decrypt(last, last + 1, last, new byte[SegmentCipher.SEGMENT_SIZE_BYTES], 0);
    }
  }

  /** Gives memory back. */
  void forget() {
    ciphertext = new byte[0];
  }
}
