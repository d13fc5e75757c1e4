package io.casemate.spark;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileRange;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RawLocalFileSystem;
import org.apache.hadoop.fs.StreamCapabilities;

/** Every way to read a stream gives the plaintext at its place; what is said of a stream is true. */
final class StreamTests {
  private StreamTests() {}

  static void run(FileSystem fs, Path file, byte[] content) {
    Check.test("random reads of every kind give the bytes at their place", () -> randomReads(fs, file, content));
    Check.test("vectored reads give every range, in whatever order they were asked for",
        () -> vectored(fs, file, content));
    Check.test("positioned reads from many threads do not disturb one another", () -> threads(fs, file, content));
    Check.test("positions beyond the end are refused, and the end is -1", () -> ends(fs, file, content));
    Check.test("a stream claims what it can do and nothing else", () -> {
      try (FSDataInputStream in = fs.open(file)) {
        for (String can : List.of(StreamCapabilities.READBYTEBUFFER, StreamCapabilities.PREADBYTEBUFFER,
            StreamCapabilities.VECTOREDIO, StreamCapabilities.UNBUFFER)) {
          Check.that(in.hasCapability(can), can);
        }
        Check.that(!in.hasCapability(StreamCapabilities.READAHEAD), "readahead");
        Check.same(null, in.getFileDescriptor());
        in.read(new byte[10]);
        in.unbuffer();
        byte[] rest = new byte[20];
        in.readFully(rest);
        Check.same(Arrays.copyOfRange(content, 10, 30), rest);
      }
    });
    Check.test("a closed stream reads nothing", () -> {
      FSDataInputStream in = fs.open(file);
      in.close();
      in.close();
      for (Check.Body read : List.<Check.Body>of(in::read, () -> in.read(0, new byte[1], 0, 1), () -> in.seek(0))) {
        try {
          read.run();
          throw new AssertionError("read");
        } catch (IOException e) {
          // as it should
        }
      }
    });
  }

  private static void randomReads(FileSystem fs, Path file, byte[] content) throws IOException {
    Random random = new Random(1);
    try (FSDataInputStream in = fs.open(file)) {
      for (int i = 0; i < 3000; i++) {
        int from = random.nextInt(content.length);
        int size = Math.min(content.length - from, random.nextInt(random.nextBoolean() ? 100 : 150_000));
        byte[] expected = Arrays.copyOfRange(content, from, from + size);
        byte[] got = new byte[size];
        ByteBuffer buffer = random.nextBoolean() ? ByteBuffer.allocate(size) : ByteBuffer.allocateDirect(size);
        switch (random.nextInt(6)) {
          case 0 -> in.readFully(from, got);
          case 1 -> {
            in.seek(from);
            in.readFully(got);
            Check.same((long) from + size, in.getPos());
          }
          case 2 -> {
            in.readFully(from, buffer);
            buffer.flip().get(got);
          }
          case 3 -> {
            in.seek(from);
            while (buffer.hasRemaining() && in.read(buffer) > 0) { }
            buffer.flip().get(got);
          }
          case 4 -> {
            int done = 0;
            while (done < size) {
              done += in.read(from + done, got, done, size - done);
            }
          }
          default -> {
            in.seek(0);
            long skipped = 0;
            while (skipped < from) {
              skipped += in.skip(from - skipped);
            }
            for (int j = 0; j < Math.min(size, 50); j++) {
              got[j] = (byte) in.read();
            }
            got = Arrays.copyOf(got, Math.min(size, 50));
            expected = Arrays.copyOf(expected, got.length);
          }
        }
        Check.same(expected, got);
      }
    }
  }

  private static void vectored(FileSystem fs, Path file, byte[] content) throws Exception {
    try (FSDataInputStream in = fs.open(file)) {
      List<FileRange> ranges = new ArrayList<>();
      for (int from : new int[] {135_000, 0, 65_000, 66_000, content.length - 10}) {
        ranges.add(FileRange.createFileRange(from, Math.min(900, content.length - from)));
      }
      for (java.util.function.IntFunction<ByteBuffer> allocate :
          List.<java.util.function.IntFunction<ByteBuffer>>of(ByteBuffer::allocate, ByteBuffer::allocateDirect)) {
        in.readVectored(ranges, allocate);
        for (FileRange range : ranges) {
          ByteBuffer data = range.getData().get();
          byte[] got = new byte[data.remaining()];
          data.get(got);
          int from = (int) range.getOffset();
          Check.same(Arrays.copyOfRange(content, from, from + range.getLength()), got);
        }
      }
      try {
        in.readVectored(List.of(FileRange.createFileRange(content.length - 5, 10)), ByteBuffer::allocate);
        throw new AssertionError("beyond the end");
      } catch (EOFException e) {
        // as it should
      }
    }
  }

  private static void threads(FileSystem fs, Path file, byte[] content) throws Exception {
    ExecutorService pool = Executors.newFixedThreadPool(4);
    try (FSDataInputStream in = fs.open(file)) {
      List<Future<?>> results = new ArrayList<>();
      for (int t = 0; t < 4; t++) {
        int seed = t;
        results.add(pool.submit(() -> {
          Random random = new Random(seed);
          for (int i = 0; i < 200; i++) {
            int from = random.nextInt(content.length - 1000);
            byte[] got = new byte[1000];
            in.readFully(from, got);
            Check.same(Arrays.copyOfRange(content, from, from + 1000), got);
          }
          return null;
        }));
      }
      for (Future<?> result : results) {
        result.get();
      }
    } finally {
      pool.shutdownNow();
    }
  }

  private static void ends(FileSystem fs, Path file, byte[] content) throws IOException {
    try (FSDataInputStream in = fs.open(file)) {
      in.seek(content.length);
      Check.same(-1, in.read());
      Check.same(-1, in.read(content.length, new byte[1], 0, 1));
      Check.same(-1, in.read(content.length + 100L, new byte[1], 0, 1));
      Check.same(0, in.available());
      for (long wrong : new long[] {-1, content.length + 1L}) {
        try {
          in.seek(wrong);
          throw new AssertionError("seek to " + wrong);
        } catch (EOFException e) {
          // as it should
        }
      }
      try {
        in.readFully(content.length - 5L, new byte[6]);
        throw new AssertionError("readFully beyond the end");
      } catch (EOFException e) {
        // as it should
      }
    }
  }

  /** A file of many segments, read in order. */
  static void readAhead(FileSystem fs, Path file) throws Exception {
    byte[] large = new byte[3_000_000];
    new Random(3).nextBytes(large);
    try (FSDataOutputStream out = fs.create(file, true)) {
      out.write(large);
    }
    Check.test("what is read ahead is what is there, and all of it ends with the stream", () -> {
      for (String policy : List.of("sequential", "adaptive", "random")) {
        FileSystem.Statistics counter = FileSystem.getStatistics("file", RawLocalFileSystem.class);
        long before = counter.getThreadStatistics().getBytesRead();
        long process = counter.getBytesRead();
        long taken = ReadAhead.usage()[2];
        FSDataInputStream in = fs.openFile(file).opt("fs.option.openfile.read.policy", policy).build().get();
        byte[] got = new byte[large.length];
        for (int done = 0; done < got.length;) {
          done += in.read(got, done, Math.min(50_000, got.length - done));
        }
        Check.same(large, got);
        Check.same(-1, in.read());
        taken = ReadAhead.usage()[2] - taken;
        Check.that(policy.equals("random") ? taken == 0 : taken <= large.length / 250_000, policy + ": " + taken);
        in.seek(1_000_000);
        in.readFully(got, 0, 200_000);
        Check.same(Arrays.copyOfRange(large, 1_000_000, 1_200_000), Arrays.copyOf(got, 200_000));
        in.close();
        Check.same(0L, ReadAhead.usage()[1]);
        long counted = counter.getThreadStatistics().getBytesRead() - before;
        Check.that(counted >= large.length && counted < 2L * large.length, policy + ": this thread read " + counted);
        Check.that(counter.getBytesRead() - process >= counted, "the process has read what its threads have");
      }
    });
    Check.test("a stream closed in the middle leaves no thread at work, and nothing is read of it later", () -> {
      for (int i = 0; i < 50; i++) {
        FSDataInputStream in = fs.openFile(file).opt("fs.option.openfile.read.policy", "sequential").build().get();
        in.readFully(new byte[1 + i * 20_000]);
        in.close();
        Check.same(0L, ReadAhead.usage()[1]);
      }
      Check.that(ReadAhead.usage()[0] <= Runtime.getRuntime().availableProcessors(), "too many threads");
    });
    Check.test("a changed segment that was read ahead is refused when it is wanted, and not before", () -> {
      java.nio.file.Path stored = java.nio.file.Path.of(file.toUri().getPath());
      byte[] bytes = Files.readAllBytes(stored);
      bytes[1_500_000] ^= 1;
      Files.write(stored, bytes);
      try (FSDataInputStream in =
          fs.openFile(file).opt("fs.option.openfile.read.policy", "sequential").build().get()) {
        byte[] got = new byte[1_400_000];
        in.readFully(got);
        Check.same(Arrays.copyOf(large, got.length), got);
        Check.refused("file-tampered", () -> in.readFully(new byte[200_000]));
      }
      Check.same(0L, ReadAhead.usage()[1]);
    });
    Check.test("an option that has to be understood and is not, is refused", () -> {
      try {
        fs.openFile(file).must("fs.option.openfile.nothing", "x").build().get();
        throw new AssertionError("opened");
      } catch (IllegalArgumentException e) {
        // as it should
      }
    });
  }

  static void writing(FileSystem fs, Path file, java.nio.file.Path stored, byte[] content) {
    Check.test("an unfinished file is never whole, flushed or not, and hides nothing in its claims", () -> {
      FSDataOutputStream out = fs.create(file);
      for (String claim : List.of(StreamCapabilities.HSYNC, StreamCapabilities.HFLUSH)) {
        Check.that(!out.hasCapability(claim), claim);
      }
      out.write(content, 0, 135_000);
      out.hflush();
      out.hsync();
      Check.that(Files.size(stored) > 65536, "complete segments are stored");
      Check.same(135_000L, out.getPos());
      java.nio.file.Path copy = stored.resolveSibling("copy");
      Files.copy(stored, copy);
      Check.refused(() -> TestFiles.read(fs.open(new Path("file://" + copy))));
      out.write(content, 135_000, content.length - 135_000);
      out.close();
      out.close();
      Check.same(content, TestFiles.read(fs.open(file)));
    });
    Check.test("one dataset key wraps every file key, and no two files share anything but the dataset", () -> {
      byte[] first = Files.readAllBytes(stored);
      try (FSDataOutputStream out = fs.create(file, true)) {
        out.write(content);
      }
      byte[] second = Files.readAllBytes(stored);
      int same = 0;
      for (int i = Preamble.SIZE_BYTES; i < first.length; i++) {
        same += first[i] == second[i] ? 1 : 0;
      }
      Check.that(same < first.length / 100, "the bodies resemble one another: " + same);
    });
  }
}
