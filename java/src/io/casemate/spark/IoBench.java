package io.casemate.spark;

import com.google.crypto.tink.subtle.AesGcmHkdfStreaming;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.net.URI;
import java.nio.file.Files;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.TreeMap;
import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FSInputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RawLocalFileSystem;

/**
 * How fast this JVM encrypts, decrypts, writes and reads, beside tink-java's stream in the same run: {@code casemate bench io}.
 * Arguments: directory, bytes, repeats. Prints one JSON object, GiB of plaintext per second.
 *
 * <p>Figures are per core: by processor time of all Java threads, so that reading ahead on another thread counts for
 * what it costs. {@code _wall} ones are by the clock. The storage is a part of this JVM's memory, copied to and from;
 * {@code _file} ones are of a file in the directory, whatever that costs in the kernel. Each trial runs everything
 * once, in changing order; the median counts. {@code _cold} ones are of the first 16 MiB in the life of the JVM.
 */
public final class IoBench {
  private static final int BLOCK_SIZE_BYTES = 1 << 20;
  private static final long COLD_SIZE_BYTES = 16L << 20;
  private static final long WARM_UP_NANOS = 1_000_000_000L;

  private final SecureRandom random = new SecureRandom();
  private final DatasetKey key = new DatasetKey("bench/io", 1, new byte[32]);
  private final byte[] block = new byte[BLOCK_SIZE_BYTES];
  private final byte[] room = new byte[BLOCK_SIZE_BYTES + 1024];
  private final RawLocalFileSystem files = new RawLocalFileSystem();
  private final java.nio.file.Path directory;
  private final AesGcmHkdfStreaming tink;
  private final long size;
  private final Memory memory;
  private final Memory tinkMemory;

  private interface Work {
    void run(long bytes) throws Exception;
  }

  private IoBench(java.nio.file.Path directory, long size) throws Exception {
    this.size = size;
    this.directory = directory;
    this.memory = new Memory(size);
    this.tinkMemory = new Memory(size);
    files.initialize(URI.create("file:///"), new Configuration());
    random.nextBytes(block);
    byte[] secret = new byte[32];
    random.nextBytes(secret);
    tink = new AesGcmHkdfStreaming(secret, "HmacSha256", 32, SegmentCipher.SEGMENT_SIZE_BYTES, 0);
  }

  /** The JVM calls this. */
  public static void main(String[] arguments) throws Exception {
    IoBench bench = new IoBench(java.nio.file.Path.of(arguments[0]), Long.parseLong(arguments[1]));
    try {
      System.out.println(json(bench.measure(Integer.parseInt(arguments[2]))));
    } finally {
      for (String name : List.of("ours", "tink", "plain")) {
        Files.deleteIfExists(bench.file(name).toPath());
      }
    }
    System.out.flush();
    Runtime.getRuntime().halt(0); // nothing of Hadoop's is worth waiting for
  }

  private File file(String name) {
    return directory.resolve("casemate-bench-" + name).toFile();
  }

  private Map<String, Work> work() {
    Map<String, Work> work = new LinkedHashMap<>(); // the writers first: the readers need what they wrote
    work.put("java_write", bytes -> fill(encrypted(new FSDataOutputStream(memory.overwrite(), null)), bytes));
    work.put("java_read", bytes -> drain(decrypted(memory), bytes));
    work.put("tink_java_write", bytes -> fill(tink.newEncryptingStream(tinkMemory.overwrite(), new byte[0]), bytes));
    work.put("tink_java_read", bytes -> drain(tink.newDecryptingStream(tinkMemory.open(), new byte[0]), bytes));
    work.put("raw_jvm_encrypt", bytes -> raw(bytes, Cipher.ENCRYPT_MODE));
    work.put("raw_jvm", bytes -> raw(bytes, Cipher.DECRYPT_MODE));
    work.put("java_random_1m", bytes -> readAt(bytes, 1 << 20));
    work.put("java_random_8k", bytes -> readAt(bytes, 8192));
    work.put("java_write_file", bytes -> fill(encrypted(files.create(path("ours"), true)), bytes));
    work.put("java_read_file", bytes -> drain(decrypted(), bytes));
    work.put("tink_java_write_file",
        bytes -> fill(tink.newEncryptingStream(new FileOutputStream(file("tink")), new byte[0]), bytes));
    work.put("tink_java_read_file",
        bytes -> drain(tink.newDecryptingStream(new FileInputStream(file("tink")), new byte[0]), bytes));
    work.put("plain_java_write_file", bytes -> fill(new FileOutputStream(file("plain")), bytes));
    work.put("plain_java_read_file", bytes -> drain(new FileInputStream(file("plain")), bytes));
    return work;
  }

  private Map<String, Double> measure(int repeats) throws Exception {
    Map<String, Work> work = work();
    Map<String, Double> results = new TreeMap<>();
    for (String name : List.of("java_write", "java_read")) {
      results.put(name + "_cold", rates(work.get(name), Math.min(COLD_SIZE_BYTES, size))[0]);
    }
    for (Work each : work.values()) {
      long end = System.nanoTime() + Math.min(WARM_UP_NANOS, 16 * size); // less for a mere test
      do {
        each.run(size);
      } while (System.nanoTime() < end);
    }
    Map<String, List<double[]>> trials = new TreeMap<>();
    List<String> order = new ArrayList<>(work.keySet());
    for (int i = 0; i < repeats; i++) {
      Collections.rotate(order, 5);
      for (String name : order) {
        trials.computeIfAbsent(name, any -> new ArrayList<>()).add(rates(work.get(name), size));
      }
    }
    trials.forEach((name, rates) -> {
      results.put(name, median(rates, 0));
      results.put(name + "_wall", median(rates, 1));
    });
    return results;
  }

  /** GiB/s by processor time and by the clock. */
  private static double[] rates(Work work, long bytes) throws Exception {
    long processor = processorTime();
    long clock = System.nanoTime();
    work.run(bytes);
    double wall = System.nanoTime() - clock;
    double gib = bytes * 1e9 / (1 << 30);
    return new double[] {gib / Math.max(processorTime() - processor, 1), gib / wall};
  }

  /** Nanoseconds of all Java threads; the process's own counter is too coarse. */
  private static long processorTime() {
    ThreadMXBean threads = ManagementFactory.getThreadMXBean();
    long sum = 0;
    for (long thread : threads.getAllThreadIds()) {
      sum += Math.max(0, threads.getThreadCpuTime(thread));
    }
    return sum;
  }

  private static double median(List<double[]> rates, int which) {
    double[] sorted = rates.stream().mapToDouble(rate -> rate[which]).sorted().toArray();
    return (sorted[(sorted.length - 1) / 2] + sorted[sorted.length / 2]) / 2;
  }

  private void fill(OutputStream out, long bytes) throws IOException {
    try (out) {
      for (long left = bytes; left > 0; left -= BLOCK_SIZE_BYTES) {
        out.write(block, 0, (int) Math.min(left, BLOCK_SIZE_BYTES));
      }
    }
  }

  private void drain(InputStream in, long bytes) throws IOException {
    long total = 0;
    try (in) {
      for (int got = in.read(room); got >= 0; got = in.read(room)) {
        total += got;
      }
    }
    if (total != bytes) {
      throw new IOException("read " + total + " of " + bytes + " bytes");
    }
  }

  private OutputStream encrypted(FSDataOutputStream stored) {
    return new EncryptedOutputStream(stored, key, random, () -> { });
  }

  private FSDataInputStream decrypted(Memory stored) throws IOException {
    return decrypted(new StoredBytes.Streamed(new FSDataInputStream(stored.open()), false, null), stored.length());
  }

  @SuppressWarnings("deprecation") // there is no other way to the class's counter
  private FSDataInputStream decrypted() throws IOException {
    File file = file("ours");
    return decrypted(new StoredBytes.Local(
        file.toPath(), FileSystem.getStatistics("file", RawLocalFileSystem.class)), file.length());
  }

  private FSDataInputStream decrypted(StoredBytes stored, long length) throws IOException {
    return StoredFiles.open(stored, "bench", length, ReadPolicy.ADAPTIVE, preamble -> key, null);
  }

  private Path path(String name) {
    return new Path(file(name).toURI());
  }

  /** Small reads decrypt a whole segment each, so that fewer of them are enough. */
  private void readAt(long bytes, int once) throws IOException {
    SplittableRandom positions = new SplittableRandom(1);
    try (FSDataInputStream in = decrypted(memory)) {
      for (long left = bytes; left > 0; left -= once) {
        in.readFully(positions.nextLong(size - once), room, 0, once);
      }
    }
  }

  /** Whole segments from memory to memory, by nothing but the cipher. */
  private void raw(long bytes, int mode) throws Exception {
    Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
    SecretKeySpec secret = new SecretKeySpec(new byte[32], "AES");
    byte[] nonce = new byte[12];
    int plain = SegmentCipher.PLAINTEXT_SIZE_BYTES;
    byte[] sealed = new byte[SegmentCipher.SEGMENT_SIZE_BYTES];
    cipher.init(Cipher.ENCRYPT_MODE, secret, new GCMParameterSpec(128, nonce));
    cipher.doFinal(block, 0, plain, sealed, 0);
    for (long left = bytes, index = 1; left > 0; left -= plain, index++) {
      if (mode == Cipher.ENCRYPT_MODE) {
        nonce[10] = (byte) (index >>> 8);
        nonce[11] = (byte) index;
        nonce[9] = (byte) (index >>> 16);
        cipher.init(mode, secret, new GCMParameterSpec(128, nonce));
        cipher.doFinal(block, 0, plain, room, 0);
      } else {
        cipher.init(mode, secret, new GCMParameterSpec(128, nonce));
        cipher.doFinal(sealed, 0, sealed.length, room, 0);
      }
    }
  }

  private static String json(Map<String, Double> results) {
    StringBuilder text = new StringBuilder();
    results.forEach((name, rate) ->
        text.append(text.isEmpty() ? "{" : ", ").append(String.format(Locale.ROOT, "\"%s\": %.4f", name, rate)));
    return text.append('}').toString();
  }

  /** A file in memory. */
  private static final class Memory {
    private static final int CHUNK_SIZE_BYTES = 4 << 20;
    private final byte[][] chunks;
    private long length;

    Memory(long plaintext) {
      chunks = new byte[(int) ((plaintext + plaintext / 1000 + 4096) / CHUNK_SIZE_BYTES) + 1][CHUNK_SIZE_BYTES];
    }

    long length() {
      return length;
    }

    private interface Copy {
      void part(byte[] chunk, int at, int done, int count);
    }

    private static void copy(byte[][] chunks, long position, int size, Copy copy) {
      for (int done = 0; done < size;) {
        int at = (int) ((position + done) % CHUNK_SIZE_BYTES);
        int count = Math.min(size - done, CHUNK_SIZE_BYTES - at);
        copy.part(chunks[(int) ((position + done) / CHUNK_SIZE_BYTES)], at, done, count);
        done += count;
      }
    }

    OutputStream overwrite() {
      length = 0;
      return new OutputStream() {
        @Override
        public void write(int value) {
          write(new byte[] {(byte) value}, 0, 1);
        }

        @Override
        public void write(byte[] in, int offset, int size) {
          copy(chunks, length, size, (chunk, at, done, count) ->
              System.arraycopy(in, offset + done, chunk, at, count));
          length += size;
        }
      };
    }

    FSInputStream open() {
      return new FSInputStream() {
        private long position;

        @Override
        public int read() {
          byte[] one = new byte[1];
          return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
        }

        @Override
        public int read(byte[] out, int offset, int wanted) {
          int size = (int) Math.min(wanted, length - position);
          if (size <= 0) {
            return wanted == 0 ? 0 : -1;
          }
          copy(chunks, position, size, (chunk, at, done, count) ->
              System.arraycopy(chunk, at, out, offset + done, count));
          position += size;
          return size;
        }

        @Override
        public void seek(long target) {
          position = target;
        }

        @Override
        public long getPos() {
          return position;
        }

        @Override
        public boolean seekToNewSource(long target) {
          return false;
        }
      };
    }
  }
}
