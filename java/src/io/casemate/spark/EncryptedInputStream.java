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
import org.apache.hadoop.fs.FSExceptionMessages;
import org.apache.hadoop.fs.FSInputStream;
import org.apache.hadoop.fs.FileRange;
import org.apache.hadoop.fs.StreamCapabilities;
import org.apache.hadoop.fs.VectoredReadUtils;
import org.apache.hadoop.fs.statistics.IOStatistics;
import org.apache.hadoop.fs.statistics.IOStatisticsSource;
import org.apache.hadoop.fs.statistics.IOStatisticsSupport;

/**
 * The plaintext of one encrypted file. Every byte it hands out is authentic and at its place, and the end of the file
 * is reported only once the last segment was authenticated. Thread-safe, as positioned reads must be.
 */
final class EncryptedInputStream extends FSInputStream
    implements ByteBufferReadable, ByteBufferPositionedReadable, CanUnbuffer, StreamCapabilities, IOStatisticsSource {
  private static final int MAX_FETCH = SegmentReader.MAX_FETCH;
  private static final int KEPT_SEGMENTS = 4;
  /** Who asks for so much at once is given no more than one copy. */
  private static final int BULK_BYTES = MAX_FETCH * SegmentCipher.SEGMENT_SIZE_BYTES;
  /** So much has to be read in order before more is read ahead, unless the program said that it will. */
  private static final long SEQUENTIAL_BYTES = 1 << 20;

  private final StoredBytes stored;
  private final SegmentReader segments;
  private final String name;
  private final long length;
  private final ReadPolicy policy;

  private long position;
  private boolean closed;
  private Window window = new Window();
  private final Window[] kept = new Window[KEPT_SEGMENTS];
  private int nextKept;
  private int fetch = 1;
  private long inOrder; // bytes read without a seek
  private ReadAhead ahead;

  EncryptedInputStream(
      StoredBytes stored, String name, SegmentCipher cipher, long storedLength, ReadPolicy policy, Agent agent) {
    this.stored = stored;
    this.name = name;
    this.segments = new SegmentReader(stored, name, cipher, storedLength, agent);
    this.length = SegmentCipher.plaintextSize(storedLength);
    this.policy = policy;
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
    if (!window.holds(position) && !takeAhead()) {
      int direct = readWholeSegments(out, offset, wanted);
      if (direct > 0) {
        if (wanted < BULK_BYTES || stored.isRemote()) {
          readOn(position + direct);
        } // else: bulk reads are decrypted in place, without a copy
        return advance(direct);
      }
      fill();
      readOn(window.end());
    }
    return advance(window.copy(position, out, offset, wanted));
  }

  private int advance(int count) {
    position += count;
    inOrder += count;
    return count;
  }

  /** Whether the bytes at the current position were read ahead. */
  private boolean takeAhead() throws IOException {
    Window taken = ahead == null ? null : ahead.take(SegmentCipher.segmentOf(position), window);
    if (taken == null) {
      return false;
    }
    window = taken;
    readOn(window.end());
    return window.holds(position);
  }

  /** Has what begins at {@code from}, the next to be wanted, read on another thread; if reading is in order. */
  private void readOn(long from) {
    if (ahead == null && policy.readsAhead(inOrder >= SEQUENTIAL_BYTES)) {
      ahead = ReadAhead.of(segments);
    }
    if (ahead != null && from < length) {
      long next = SegmentCipher.segmentOf(from);
      ahead.start(next, Math.min(next + MAX_FETCH, segments.last() + 1));
    }
  }

  /** Decrypts straight into the caller's array as long as whole segments fit; 0 if not even one does. */
  private int readWholeSegments(byte[] out, int offset, int wanted) throws IOException {
    long first = SegmentCipher.segmentOf(position);
    if (position != SegmentCipher.plaintextStart(first)) {
      return 0;
    }
    int size = 0;
    for (long index = first; size < wanted;) {
      long end = index;
      int room = wanted - size;
      while (end <= segments.last() && end - index < MAX_FETCH && segments.plaintextSize(end) <= room) {
        room -= segments.plaintextSize(end++);
      }
      if (end == index) {
        break;
      }
      segments.fetch(index, end, false);
      try {
        for (; index < end; index++) {
          size += segments.decrypt(index, out, offset + size);
        }
      } finally {
        segments.release();
      }
    }
    return size;
  }

  /** Decrypts the segment at the current position and, when reading goes on and on, some after it. */
  private void fill() throws IOException {
    long first = SegmentCipher.segmentOf(position);
    fetch = window.end() == SegmentCipher.plaintextStart(first) && inOrder > 0 ? Math.min(2 * fetch, MAX_FETCH) : 1;
    window.read(segments, first, Math.min(first + fetch, segments.last() + 1));
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
    if (window.holds(from)) {
      return window.copy(from, out, offset, wanted);
    }
    for (Window some : kept) {
      if (some != null && some.holds(from)) {
        return some.copy(from, out, offset, wanted);
      }
    }
    long first = SegmentCipher.segmentOf(from);
    long last = Math.min(SegmentCipher.segmentOf(from + wanted - 1), first + MAX_FETCH - 1);
    segments.fetch(first, last + 1, true);
    try {
      int done = 0;
      for (long index = first; index <= last; index++) {
        long start = SegmentCipher.plaintextStart(index);
        if (from + done == start && segments.plaintextSize(index) <= wanted - done) {
          done += segments.decrypt(index, out, offset + done);
        } else {
          done += keep(index).copy(from + done, out, offset + done, wanted - done);
        }
      }
      return done;
    } finally {
      segments.release();
    }
  }

  /** Keeps one fetched segment, since small positioned reads often come in its neighbourhood. */
  private Window keep(long index) throws IOException {
    Window some = kept[nextKept] == null ? kept[nextKept] = new Window() : kept[nextKept];
    nextKept = (nextKept + 1) % KEPT_SEGMENTS;
    some.take(segments, index);
    return some;
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
    List<? extends FileRange> sorted = VectoredReadUtils.validateAndSortRanges(ranges, Optional.of(length));
    if (sorted.stream().allMatch(range -> range.getLength() > 0) && RangeReads.start(segments, sorted, allocate)) {
      return;
    }
    for (FileRange range : sorted) {
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
    if (target != position) {
      inOrder = 0;
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
      case StreamCapabilities.IOSTATISTICS:
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
    if (ahead != null) {
      ahead.close();
      ahead = null;
    }
    bounce = null;
    Arrays.fill(kept, null);
    window = new Window();
  }

  /** What the storage counts of its own stream; null if it counts nothing. */
  @Override
  public IOStatistics getIOStatistics() {
    return stored.stream() == null ? null : IOStatisticsSupport.retrieveIOStatistics(stored.stream());
  }

  @Override
  public String toString() {
    return "EncryptedInputStream{" + name + "}";
  }
}
