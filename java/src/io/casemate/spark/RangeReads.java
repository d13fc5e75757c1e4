package io.casemate.spark;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.function.IntFunction;
import org.apache.hadoop.fs.FileRange;
import org.apache.hadoop.fs.StreamCapabilities;

/** Vectored reads of a file as vectored reads of its segments, for storages that fetch ranges side by side. */
final class RangeReads {
  private static final int MOST_BYTES = 1 << 30;

  /** Segments {@code first} to {@code last}, and the ranges of plaintext that lie in them. */
  private record Group(long first, long last, List<FileRange> ranges) {}

  private RangeReads() {}

  /**
   * Begins to read ranges of plaintext, sorted and not overlapping, none empty; each is decrypted on the thread on which
   * the storage delivers it. False if the storage has nothing to win by it: then nothing was done.
   */
  static boolean start(SegmentReader segments, List<? extends FileRange> sorted, IntFunction<ByteBuffer> allocate)
      throws IOException {
    StoredBytes stored = segments.stored();
    if (!stored.isRemote() || !stored.stream().hasCapability(StreamCapabilities.VECTOREDIO)) {
      return false;
    }
    List<FileRange> wanted = new ArrayList<>();
    for (Group group : groups(sorted)) {
      long from = SegmentCipher.storedStart(group.first());
      long size = segments.storedEnd(group.last()) - from;
      if (size > MOST_BYTES) {
        return false;
      }
      wanted.add(FileRange.createFileRange(from, (int) size, group));
    }
    stored.stream().readVectored(wanted, ByteBuffer::allocate);
    for (FileRange fetched : wanted) {
      Group group = (Group) fetched.getReference();
      for (FileRange range : group.ranges()) {
        CompletableFuture<ByteBuffer> bytes = fetched.getData();
        range.setData(bytes.thenApply(
            ciphertext -> decrypt(segments.beside(), group, range, ciphertext, allocate.apply(range.getLength()))));
      }
    }
    return true;
  }

  /** Ranges that share a segment go together: what is asked of the storage does not overlap either. */
  private static List<Group> groups(List<? extends FileRange> sorted) {
    List<Group> groups = new ArrayList<>();
    for (FileRange range : sorted) {
      long first = SegmentCipher.segmentOf(range.getOffset());
      long last = SegmentCipher.segmentOf(range.getOffset() + range.getLength() - 1);
      Group before = groups.isEmpty() ? null : groups.get(groups.size() - 1);
      if (before != null && first <= before.last()) {
        before.ranges().add(range);
        groups.set(groups.size() - 1, new Group(before.first(), last, before.ranges()));
      } else {
        groups.add(new Group(first, last, new ArrayList<>(List.of(range))));
      }
    }
    return groups;
  }

  private static ByteBuffer decrypt(
      SegmentReader segments, Group group, FileRange range, ByteBuffer ciphertext, ByteBuffer out) {
    byte[] plain = new byte[SegmentCipher.SEGMENT_SIZE_BYTES];
    long at = range.getOffset();
    long end = at + range.getLength();
    out.limit(out.position() + range.getLength());
    ByteBuffer filled = out.duplicate();
    try {
      while (at < end) {
        long index = SegmentCipher.segmentOf(at);
        int from = (int) (SegmentCipher.storedStart(index) - SegmentCipher.storedStart(group.first()));
        segments.decrypt(index, ciphertext.array(), ciphertext.arrayOffset() + ciphertext.position() + from, plain);
        int skip = (int) (at - SegmentCipher.plaintextStart(index));
        int count = (int) Math.min(end - at, segments.plaintextSize(index) - skip);
        filled.put(plain, skip, count);
        at += count;
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    return out;
  }
}
