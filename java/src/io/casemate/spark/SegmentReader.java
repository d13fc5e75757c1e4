package io.casemate.spark;

import java.io.EOFException;
import java.io.IOException;
import java.util.concurrent.ArrayBlockingQueue;
import javax.crypto.AEADBadTagException;

/** Fetches and decrypts segments of one file, and says what is wrong with those that are bad. Not thread-safe. */
final class SegmentReader {
  /** Most segments to fetch at once: what is fetched, decrypted and handed on stays in a core's own cache. */
  static final int MAX_FETCH = 4;

  private static final int BUFFER_SIZE_BYTES = MAX_FETCH * SegmentCipher.SEGMENT_SIZE_BYTES;
  /** Ciphertext is never kept, so that as many buffers do as threads decrypt at one time. */
  private static final ArrayBlockingQueue<byte[]> BUFFERS =
      new ArrayBlockingQueue<>(2 * Runtime.getRuntime().availableProcessors());

  private final StoredBytes stored;
  private final String name;
  private final SegmentCipher cipher;
  private final Agent agent;
  private final long length;
  private final long storedLength;
  private final long last;
  private boolean endAuthentic;
  private byte[] ciphertext;
  private long fetched;

  SegmentReader(StoredBytes stored, String name, SegmentCipher cipher, long storedLength, Agent agent) {
    this.stored = stored;
    this.name = name;
    this.cipher = cipher;
    this.agent = agent;
    this.storedLength = storedLength;
    this.length = SegmentCipher.plaintextSize(storedLength);
    this.last = (storedLength - Preamble.SIZE_BYTES - 1) / SegmentCipher.SEGMENT_SIZE_BYTES;
  }

  /** Another one for the same file, to read ahead: what it finds wrong is told when somebody wants those bytes. */
  SegmentReader another() {
    return new SegmentReader(stored, name, cipher.another(), storedLength, null);
  }

  /** Another one for the same file, to decrypt on another thread what was asked for. */
  SegmentReader beside() {
    return new SegmentReader(stored, name, cipher.another(), storedLength, agent);
  }

  StoredBytes stored() {
    return stored;
  }

  /** The index of the last segment. */
  long last() {
    return last;
  }

  int plaintextSize(long index) {
    return (int) (Math.min(SegmentCipher.plaintextStart(index + 1), length) - SegmentCipher.plaintextStart(index));
  }

  long storedEnd(long index) {
    return Math.min(SegmentCipher.storedStart(index + 1), storedLength);
  }

  /** Brings the ciphertext of segments {@code first} to {@code end - 1} into memory, until {@link #release}. */
  void fetch(long first, long end, boolean jump) throws IOException {
    long from = SegmentCipher.storedStart(first);
    int size = (int) (storedEnd(end - 1) - from);
    if (ciphertext == null) {
      byte[] pooled = BUFFERS.poll();
      ciphertext = pooled != null ? pooled : new byte[BUFFER_SIZE_BYTES];
    }
    fetched = first;
    try {
      stored.readFully(from, ciphertext, 0, size, jump);
    } catch (EOFException e) {
      release();
      throw refused(new IntegrityException("file-truncated", name, "ends within segment " + (end - 1), e));
    } catch (IOException | RuntimeException e) {
      release();
      throw e;
    }
  }

  /** Decrypts one fetched segment; returns its plaintext bytes. */
  int decrypt(long index, byte[] out, int offset) throws IOException {
    int from = (int) (SegmentCipher.storedStart(index) - SegmentCipher.storedStart(fetched));
    int size = (int) (storedEnd(index) - SegmentCipher.storedStart(index));
    decrypt(index, ciphertext, from, size, out, offset);
    return size - SegmentCipher.TAG_SIZE_BYTES;
  }

  /** Decrypts one segment that was fetched elsewhere, to {@code in} from {@code from} on. */
  void decrypt(long index, byte[] in, int from, byte[] out) throws IOException {
    decrypt(index, in, from, (int) (storedEnd(index) - SegmentCipher.storedStart(index)), out, 0);
  }

  private void decrypt(long index, byte[] in, int from, int size, byte[] out, int offset) throws IOException {
    try {
      cipher.decrypt(index, index == last, in, from, size, out, offset);
    } catch (AEADBadTagException e) {
      throw refused(badSegment(index, in, from, size, e));
    }
    endAuthentic |= index == last;
  }

  /** Gives the ciphertext's buffer back. */
  void release() {
    if (ciphertext != null) {
      BUFFERS.offer(ciphertext);
      ciphertext = null;
    }
  }

  private IntegrityException refused(IntegrityException refusal) {
    return agent == null ? refusal : agent.report(refusal);
  }

  private IntegrityException badSegment(long index, byte[] in, int from, int size, AEADBadTagException cause) {
    if (index == last && size > SegmentCipher.TAG_SIZE_BYTES) {
      try {
        cipher.decrypt(index, false, in, from, size, new byte[size], 0);
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
      try {
        decrypt(last, new byte[SegmentCipher.SEGMENT_SIZE_BYTES], 0);
      } finally {
        release();
      }
    }
  }
}
