package io.casemate.spark;

import java.io.IOException;
import java.io.OutputStream;
import java.security.SecureRandom;
import java.util.Objects;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.StreamCapabilities;

/**
 * Encrypts one new file. A segment is written once it is complete and known not to be the last; the last one, which
 * alone makes the file whole, is written by {@link #close()}. So a reader never takes an unfinished file for a whole.
 *
 * <p>{@link #flush()} brings complete segments to the storage, at most 64 KiB stay in memory until the file is closed.
 * Therefore this is not {@code Syncable}: {@code hflush} and {@code hsync} of a wrapping stream come down to
 * {@code flush}, and {@link #hasCapability} promises neither.
 */
final class EncryptedOutputStream extends OutputStream implements StreamCapabilities {
  private static final int CHUNK_SEGMENTS = 8;

  /** What to do once the file is complete on storage. */
  interface Completion {
    void run() throws IOException;
  }

  private final FSDataOutputStream stored;
  private final SegmentCipher cipher;
  private final Completion completion;
  private final byte[] plaintext = new byte[SegmentCipher.PLAINTEXT_SIZE_BYTES];
  private int filled;
  private byte[] chunk = new byte[SegmentCipher.SEGMENT_SIZE_BYTES + Preamble.SIZE_BYTES];
  private int chunkFilled;
  private long index;
  private boolean closed;
  private boolean broken;

  EncryptedOutputStream(FSDataOutputStream stored, DatasetKey key, SecureRandom random, Completion completion) {
    this(stored, key, random, null, completion);
  }

  /** @param fileId from {@link FileIds}, or null for a random one */
  EncryptedOutputStream(FSDataOutputStream stored, DatasetKey key, SecureRandom random, String fileId,
      Completion completion) {
    byte[] fileKey = new byte[32];
    random.nextBytes(fileKey);
    Preamble preamble = fileId == null
        ? Preamble.create(key, fileKey, random) : Preamble.create(key, fileKey, random, fileId);
    byte[] header = SegmentCipher.newHeader(random);
    this.stored = stored;
    this.cipher = new SegmentCipher(fileKey, header, preamble.bytes());
    this.completion = completion;
    append(preamble.bytes());
    append(header);
  }

  private void append(byte[] bytes) {
    System.arraycopy(bytes, 0, chunk, chunkFilled, bytes.length);
    chunkFilled += bytes.length;
  }

  private int capacity() {
    return index == 0
        ? SegmentCipher.PLAINTEXT_SIZE_BYTES - SegmentCipher.HEADER_SIZE_BYTES
        : SegmentCipher.PLAINTEXT_SIZE_BYTES;
  }

  @Override
  public synchronized void write(int value) throws IOException {
    checkOpen();
    if (filled == capacity()) {
      encrypt(plaintext, 0, filled, false);
      filled = 0;
    }
    plaintext[filled++] = (byte) value;
  }

  @Override
  public synchronized void write(byte[] in, int offset, int size) throws IOException {
    checkOpen();
    Objects.checkFromIndexSize(offset, size, in.length);
    int done = 0;
    while (done < size) {
      if (filled == capacity()) {
        encrypt(plaintext, 0, filled, false);
        filled = 0;
      }
      if (filled == 0 && size - done > capacity()) { // more is to come, so this one is not the last: no copy
        int whole = capacity();
        encrypt(in, offset + done, whole, false);
        done += whole;
      } else {
        int count = Math.min(capacity() - filled, size - done);
        System.arraycopy(in, offset + done, plaintext, filled, count);
        filled += count;
        done += count;
      }
    }
  }

  private void encrypt(byte[] in, int offset, int size, boolean last) throws IOException {
    int room = size + SegmentCipher.TAG_SIZE_BYTES;
    if (index >= 1L << 32) {
      broken = true;
      throw new IOException("file is longer than 2^32 segments");
    }
    if (chunk.length - chunkFilled < room) {
      drain();
      if (chunk.length < CHUNK_SEGMENTS * SegmentCipher.SEGMENT_SIZE_BYTES) { // a small file needs no large buffer
        chunk = new byte[CHUNK_SEGMENTS * SegmentCipher.SEGMENT_SIZE_BYTES];
      }
    }
    cipher.encrypt(index++, last, in, offset, size, chunk, chunkFilled);
    chunkFilled += room;
  }

  private void drain() throws IOException {
    boolean done = false;
    try {
      stored.write(chunk, 0, chunkFilled);
      done = true;
    } finally {
      broken |= !done; // what reached the storage is unknown: the file must never become whole
    }
    chunkFilled = 0;
  }

  @Override
  public synchronized void flush() throws IOException {
    if (!closed && !broken && index > 0) {
      drain();
      stored.flush();
    }
  }

  @Override
  public synchronized void close() throws IOException {
    if (closed) {
      return;
    }
    closed = true;
    try (stored) {
      if (broken) {
        throw new IOException("an earlier write failed; the file is left incomplete");
      }
      encrypt(plaintext, 0, filled, true);
      drain();
    }
    completion.run();
  }

  private void checkOpen() throws IOException {
    if (closed || broken) {
      throw new IOException(closed ? "stream is closed" : "an earlier write failed");
    }
  }

  @Override
  public boolean hasCapability(String capability) {
    return false;
  }
}
