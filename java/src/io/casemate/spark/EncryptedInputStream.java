package io.casemate.spark;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.function.IntFunction;
import org.apache.hadoop.fs.ByteBufferPositionedReadable;
import org.apache.hadoop.fs.ByteBufferReadable;
import org.apache.hadoop.fs.CanUnbuffer;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSExceptionMessages;
import org.apache.hadoop.fs.FSInputStream;
import org.apache.hadoop.fs.FileRange;
import org.apache.hadoop.fs.StreamCapabilities;
import org.apache.hadoop.fs.VectoredReadUtils;

/**
 * The plaintext of one encrypted file. Every byte it hands out is authentic and at its place, and the end of the file
 * is reported only once the last segment was authenticated. Thread-safe, as positioned reads must be.
 */
final class EncryptedInputStream extends FSInputStream
    implements ByteBufferReadable, ByteBufferPositionedReadable, CanUnbuffer, StreamCapabilities {
  private static final int MAX_FETCH = SegmentReader.MAX_FETCH;
  private static final int KEPT_SEGMENTS = 4;

  private final FSDataInputStream stored;
  private final SegmentReader segments;
  private final String name;
  private final long length;

  private long position;
  private boolean closed;
  private final Window ahead = new Window();
  private final Window[] kept = new Window[KEPT_SEGMENTS];
  private int nextKept;
  private int fetch = 1;

  /** Some decrypted bytes and where in the file they belong. */
  private static final class Window {
    private byte[] bytes = new byte[0];
    private long start;
    private int size;

    boolean holds(long position) {
      return position >= start && position < start + size;
    }

    int copy(long from, byte[] out, int offset, int wanted) {
      int skip = (int) (from - start);
      int count = Math.min(wanted, size - skip);
      System.arraycopy(bytes, skip, out, offset, count);
      return count;
    }

    byte[] room(int wanted) {
      size = 0;
      if (bytes.length < wanted) {
        bytes = new byte[wanted];
      }
      return bytes;
    }
  }

  EncryptedInputStream(FSDataInputStream stored, String name, SegmentCipher cipher, long storedLength, Agent agent) {
    this.stored = stored;
    this.name = name;
    this.segments = new SegmentReader(stored, name, cipher, storedLength, agent);
    this.length = SegmentCipher.plaintextSize(storedLength);
  }

  @Override
  public synchronized int read() throws IOException {
    byte[] one = new byte[1];
    return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
  }

  @Override
  public synchronized int read(byte[] out, int offset, int wanted) throws IOException {
    checkOpen();
    if (wanted == 0) {
      return 0;
    }
    if (position >= length) {
      segments.authenticateEnd();
      return -1;
    }
    if (!ahead.holds(position)) {
      int direct = readWholeSegments(out, offset, wanted);
      if (direct > 0) {
        position += direct;
        return direct;
      }
      fill();
    }
    int count = ahead.copy(position, out, offset, wanted);
    position += count;
    return count;
  }

  /** Decrypts straight into the caller's array as long as whole segments fit; 0 if not even one does. */
  private int readWholeSegments(byte[] out, int offset, int wanted) throws IOException {
    long first = SegmentCipher.segmentOf(position);
    if (position != SegmentCipher.plaintextStart(first)) {
      return 0;
    }
    long end = first;
    int size = 0;
    while (end <= segments.last() && end - first < MAX_FETCH && size + segments.plaintextSize(end) <= wanted) {
      size += segments.plaintextSize(end++);
    }
    if (end > first) {
      segments.fetch(first, end, false);
      segments.decrypt(first, end, first, out, offset);
    }
    return size;
  }

  /** Decrypts the segment at the current position and, when reading goes on and on, some after it. */
  private void fill() throws IOException {
    long first = SegmentCipher.segmentOf(position);
    boolean sequential = ahead.size > 0 && SegmentCipher.plaintextStart(first) == ahead.start + ahead.size;
    fetch = sequential ? Math.min(2 * fetch, MAX_FETCH) : 1;
    long end = Math.min(first + fetch, segments.last() + 1);
    byte[] room = ahead.room((int) Math.min(fetch * (long) SegmentCipher.PLAINTEXT_SIZE_BYTES, Math.max(length, 1)));
    segments.fetch(first, end, false);
    int size = segments.decrypt(first, end, first, room, 0);
    ahead.start = SegmentCipher.plaintextStart(first);
    ahead.size = size;
  }

  @Override
  public synchronized int read(long from, byte[] out, int offset, int wanted) throws IOException {
    checkOpen();
    validatePositionedReadArgs(from, out, offset, wanted);
    if (wanted == 0) {
      return 0;
    }
    if (from >= length) {
      segments.authenticateEnd();
      return -1;
    }
    int total = (int) Math.min(wanted, length - from);
    int done = 0;
    while (done < total) {
      done += readSome(from + done, out, offset + done, total - done);
    }
    return total;
  }

  /** At least one byte at {@code from}: from memory, as whole segments into {@code out}, or of one segment to keep. */
  private int readSome(long from, byte[] out, int offset, int wanted) throws IOException {
    if (ahead.holds(from)) {
      return ahead.copy(from, out, offset, wanted);
    }
    for (Window window : kept) {
      if (window != null && window.holds(from)) {
        return window.copy(from, out, offset, wanted);
      }
    }
    long first = SegmentCipher.segmentOf(from);
    long last = Math.min(SegmentCipher.segmentOf(from + wanted - 1), first + MAX_FETCH - 1);
    segments.fetch(first, last + 1, true);
    int done = 0;
    for (long index = first; index <= last; index++) {
      long start = SegmentCipher.plaintextStart(index);
      if (from + done == start && segments.plaintextSize(index) <= wanted - done) {
        done += segments.decrypt(index, index + 1, first, out, offset + done);
      } else {
        done += keep(index, first).copy(from + done, out, offset + done, wanted - done);
      }
    }
    return done;
  }

  private Window keep(long index, long first) throws IOException {
    Window window = kept[nextKept] == null ? kept[nextKept] = new Window() : kept[nextKept];
    nextKept = (nextKept + 1) % KEPT_SEGMENTS;
    int size = segments.decrypt(index, index + 1, first, window.room(segments.plaintextSize(index)), 0);
    window.start = SegmentCipher.plaintextStart(index);
    window.size = size;
    return window;
  }

  @Override
  public int read(ByteBuffer out) throws IOException {
    synchronized (this) {
      int count = read(arrayFor(out), offsetIn(out), out.hasArray() ? out.remaining() : slice(out));
      return finish(out, count);
    }
  }

  @Override
  public int read(long from, ByteBuffer out) throws IOException {
    synchronized (this) {
      int count = read(from, arrayFor(out), offsetIn(out), out.hasArray() ? out.remaining() : slice(out));
      return finish(out, count);
    }
  }

  @Override
  public void readFully(long from, ByteBuffer out) throws IOException {
    long next = from;
    while (out.hasRemaining()) {
      int count = read(next, out);
      if (count < 0) {
        throw new EOFException(FSExceptionMessages.EOF_IN_READ_FULLY);
      }
      next += count;
    }
  }

  private byte[] bounce;

  private static int slice(ByteBuffer out) {
    return Math.min(out.remaining(), MAX_FETCH * SegmentCipher.PLAINTEXT_SIZE_BYTES);
  }

  private byte[] arrayFor(ByteBuffer out) {
    if (out.hasArray()) {
      return out.array();
    }
    if (bounce == null || bounce.length < slice(out)) {
      bounce = new byte[slice(out)];
    }
    return bounce;
  }

  private static int offsetIn(ByteBuffer out) {
    return out.hasArray() ? out.arrayOffset() + out.position() : 0;
  }

  private int finish(ByteBuffer out, int count) {
    if (count > 0) {
      if (out.hasArray()) {
        out.position(out.position() + count);
      } else {
        out.put(bounce, 0, count);
      }
    }
    return count;
  }

  /** Ranges in the order of the file, so that a segment shared by two of them is decrypted once. */
  @Override
  public void readVectored(List<? extends FileRange> ranges, IntFunction<ByteBuffer> allocate) throws IOException {
    checkOpen();
    for (FileRange range : VectoredReadUtils.validateAndSortRanges(ranges, Optional.of(length))) {
      CompletableFuture<ByteBuffer> result = new CompletableFuture<>();
      range.setData(result);
      try {
        ByteBuffer buffer = allocate.apply(range.getLength());
        buffer.limit(buffer.position() + range.getLength());
        ByteBuffer data = buffer.duplicate();
        readFully(range.getOffset(), data);
        result.complete(buffer);
      } catch (IOException | RuntimeException e) {
        result.completeExceptionally(e);
      }
    }
  }

  @Override
  public synchronized void seek(long target) throws IOException {
    checkOpen();
    if (target < 0) {
      throw new EOFException(FSExceptionMessages.NEGATIVE_SEEK);
    }
    if (target > length) {
      throw new EOFException(FSExceptionMessages.CANNOT_SEEK_PAST_EOF);
    }
    position = target;
  }

  @Override
  public synchronized long skip(long count) throws IOException {
    checkOpen();
    long skipped = Math.max(0, Math.min(count, length - position));
    position += skipped;
    return skipped;
  }

  @Override
  public synchronized long getPos() {
    return position;
  }

  @Override
  public boolean seekToNewSource(long target) {
    return false;
  }

  @Override
  public synchronized int available() throws IOException {
    checkOpen();
    return (int) Math.min(Integer.MAX_VALUE, length - position);
  }

  @Override
  public synchronized void unbuffer() {
    forget();
    stored.unbuffer();
  }

  @Override
  public boolean hasCapability(String capability) {
    switch (capability.toLowerCase(Locale.ENGLISH)) {
      case StreamCapabilities.READBYTEBUFFER:
      case StreamCapabilities.PREADBYTEBUFFER:
      case StreamCapabilities.UNBUFFER:
      case StreamCapabilities.VECTOREDIO:
        return true;
      default:
        return false;
    }
  }

  private void checkOpen() throws IOException {
    if (closed) {
      throw new IOException(FSExceptionMessages.STREAM_IS_CLOSED);
    }
  }

  @Override
  public synchronized void close() throws IOException {
    if (!closed) {
      closed = true;
      forget();
      stored.close();
    }
  }

  private void forget() {
    segments.forget();
    bounce = null;
    Arrays.fill(kept, null);
    ahead.bytes = new byte[0];
    ahead.size = 0;
  }

  @Override
  public String toString() {
    return "EncryptedInputStream{" + name + "}";
  }
}
