package io.casemate.spark;

import com.google.crypto.tink.subtle.AesGcmHkdfStreaming;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileContext;
import org.apache.hadoop.fs.FileRange;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.PositionedReadable;
import org.apache.hadoop.fs.Seekable;
import org.apache.hadoop.fs.StreamCapabilities;
import org.apache.hadoop.util.functional.FutureIO;

/** What needs no agent; the JVM that runs this has none, so that its absence can be tested as well. */
public final class UnitTests {
  private static final int FIRST = SegmentCipher.PLAINTEXT_SIZE_BYTES - SegmentCipher.HEADER_SIZE_BYTES;
  private static final int FULL = SegmentCipher.PLAINTEXT_SIZE_BYTES;
  private static final int[] SIZES = {
    0, 1, 15, 16, 4096, FIRST - 1, FIRST, FIRST + 1, FIRST + 16, FIRST + FULL - 1, FIRST + FULL, FIRST + FULL + 1,
    FIRST + 9 * FULL, FIRST + 9 * FULL + 7, 1_500_000
  };

  private UnitTests() {}

  public static void main(String[] args) {
    Check.test("HKDF-SHA256 gives the output of RFC 5869 test case 1", () -> Check.same(
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
        HexFormat.of().formatHex(Hkdf.derive(
            HexFormat.of().parseHex("0b".repeat(22)), HexFormat.of().parseHex("000102030405060708090a0b0c"),
            HexFormat.of().parseHex("f0f1f2f3f4f5f6f7f8f9")))));
    Check.test("sizes convert back and forth at every segment border", UnitTests::sizes);
    Check.test("tink decrypts what the cipher encrypts", () -> tinkReads());
    Check.test("the cipher decrypts what tink encrypts", () -> readsTink());
    Check.test("ranges that a storage fetches side by side are decrypted, or refused, one by one", () -> readsRanges());
    Check.test("a slow program finds what it reads next decrypted already", () -> readsAheadOfTime());
    Check.test("a preamble parses to what it was made of", UnitTests::preamble);
    Check.test("every change to a preamble is noticed", UnitTests::changedPreamble);
    Check.test("canonical JSON sorts, escapes and keeps what is not ASCII", () -> Check.same(
        "{\"a\":[1,true,null],\"b\\\\\":\"\\u0001\\n\\\"ü€\"}",
        new String(Json.canonical(Map.of("b\\", "\u0001\n\"ü€", "a", Arrays.asList(1L, true, null))),
            StandardCharsets.UTF_8)));
    for (String bad : List.of("", "[]", "{\"a\":1,\"a\":2}", "{\"a\":1.5}", "{} {}", "{\"a\":NaN}", "{'a':1}", "{",
        "{\"a\":99999999999999999999}")) {
      Check.test("JSON is refused: " + bad, () -> {
        try {
          Json.parseObject(bad.getBytes(StandardCharsets.UTF_8));
        } catch (IOException e) {
          return;
        }
        throw new AssertionError("was parsed");
      });
    }
    Check.test("a zone does not reach to a path that only begins alike", () -> {
      Check.that(Location.within("file:///a/b", "file:///a/b"), "itself");
      Check.that(Location.within("file:///a/b/c", "file:///a/b"), "below");
      Check.that(!Location.within("file:///a/bc", "file:///a/b"), "beside");
    });
    Check.test("a changed directory covers what lies below it until it is committed", UnitTests::changes);
    Check.test("a file whose write failed never becomes whole", UnitTests::brokenFile);
    Check.test("a session that is not understood is refused", UnitTests::badSession);
    Check.test("without an agent every access fails with one clear message", UnitTests::noAgent);
    Check.exit();
  }

  private static void sizes() {
    for (int size : SIZES) {
      long stored = SegmentCipher.storedSize(size);
      Check.same((long) size, SegmentCipher.plaintextSize(stored));
      Check.that(size % FULL == FULL - 40 || SegmentCipher.plaintextSize(stored + 1) == size + 1, "one more: " + size);
    }
    for (long impossible : new long[] {0, 511, 512, 567, 512 + 65536 + 1, 512 + 65536 + 16, 512 + 9 * 65536 + 5}) {
      Check.same(-1L, SegmentCipher.plaintextSize(impossible));
    }
  }

  private static AesGcmHkdfStreaming tink(byte[] key) throws Exception {
    return new AesGcmHkdfStreaming(key, "HmacSha256", 32, SegmentCipher.SEGMENT_SIZE_BYTES, 0);
  }

  private static byte[] content(int size) {
    byte[] content = new byte[size];
    new Random(size).nextBytes(content);
    return content;
  }

  private static byte[] encrypt(byte[] content, DatasetKey key) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (OutputStream out = new EncryptedOutputStream(
        new FSDataOutputStream(bytes, null), key, new SecureRandom(), () -> { })) {
      int done = 0;
      Random random = new Random(content.length);
      while (done < content.length) { // single bytes, small and large pieces
        int piece = Math.min(content.length - done, random.nextInt(4) == 0 ? 1 : random.nextInt(200_000));
        if (piece == 1) {
          out.write(content[done]);
        } else {
          out.write(content, done, piece);
        }
        if (random.nextInt(5) == 0) {
          out.flush();
        }
        done += piece;
      }
    }
    return bytes.toByteArray();
  }

  private static void tinkReads() throws Exception {
    DatasetKey key = new DatasetKey("hospital/patients", 1, content(32));
    for (int size : SIZES) {
      byte[] file = encrypt(content(size), key);
      Check.same(SegmentCipher.storedSize(size), (long) file.length);
      byte[] start = Arrays.copyOf(file, Preamble.SIZE_BYTES);
      byte[] fileKey = Preamble.parse(start, "f").unwrap(key, "f");
      try (InputStream plain = tink(fileKey).newDecryptingStream(
          new ByteArrayInputStream(file, Preamble.SIZE_BYTES, file.length - Preamble.SIZE_BYTES), start)) {
        Check.same(content(size), plain.readAllBytes());
      }
    }
  }

  /** A byte array as a Hadoop stream. */
  private static class Bytes extends ByteArrayInputStream implements Seekable, PositionedReadable {
    Bytes(byte[] bytes) {
      super(bytes);
    }

    @Override
    public void seek(long position) {
      pos = (int) position;
    }

    @Override
    public long getPos() {
      return pos;
    }

    @Override
    public boolean seekToNewSource(long position) {
      return false;
    }

    @Override
    public int read(long position, byte[] out, int offset, int size) {
      if (position >= count) {
        return -1;
      }
      int got = (int) Math.min(size, count - position);
      System.arraycopy(buf, (int) position, out, offset, got);
      return got;
    }

    @Override
    public void readFully(long position, byte[] out, int offset, int size) throws IOException {
      if (read(position, out, offset, size) < size) {
        throw new java.io.EOFException();
      }
    }

    @Override
    public void readFully(long position, byte[] out) throws IOException {
      readFully(position, out, 0, out.length);
    }
  }

  private static byte[] header(byte[] file) {
    return Arrays.copyOfRange(file, Preamble.SIZE_BYTES, Preamble.SIZE_BYTES + SegmentCipher.HEADER_SIZE_BYTES);
  }

  private static void readsTink() throws Exception {
    byte[] key = content(32);
    byte[] preamble = content(Preamble.SIZE_BYTES);
    for (int size : SIZES) {
      ByteArrayOutputStream file = new ByteArrayOutputStream();
      file.write(preamble);
      try (OutputStream out = tink(key).newEncryptingStream(file, preamble)) {
        out.write(content(size));
      }
      byte[] stored = file.toByteArray();
      byte[] header = header(stored);
      for (ReadPolicy policy : ReadPolicy.values()) {
        try (EncryptedInputStream in = new EncryptedInputStream(
            new StoredBytes.Streamed(new FSDataInputStream(new Bytes(stored)), true, null), "f",
            new SegmentCipher(key, header, preamble), stored.length, policy, null)) {
          Check.same(content(size), in.readAllBytes());
        }
      }
    }
  }

  /** A storage that fetches ranges by itself. */
  private static final class Ranged extends Bytes implements StreamCapabilities {
    Ranged(byte[] bytes) {
      super(bytes);
    }

    @Override
    public boolean hasCapability(String capability) {
      return capability.equals(StreamCapabilities.VECTOREDIO);
    }
  }

  private static void readsRanges() throws Throwable {
    byte[] key = content(32);
    byte[] preamble = content(Preamble.SIZE_BYTES);
    byte[] plain = content(1_000_000);
    ByteArrayOutputStream file = new ByteArrayOutputStream();
    file.write(preamble);
    try (OutputStream out = tink(key).newEncryptingStream(file, preamble)) {
      out.write(plain);
    }
    byte[] stored = file.toByteArray();
    try (EncryptedInputStream in = remote(key, stored, preamble)) {
      List<FileRange> ranges = new ArrayList<>();
      for (int[] range : new int[][] {{999_990, 10}, {0, 1}, {5, 70_000}, {70_010, 65_600}, {400_000, 300_000}}) {
        ranges.add(FileRange.createFileRange(range[0], range[1]));
      }
      for (boolean direct : new boolean[] {false, true}) {
        in.readVectored(ranges, direct ? ByteBuffer::allocateDirect : ByteBuffer::allocate);
        for (FileRange range : ranges) {
          byte[] got = new byte[range.getLength()];
          range.getData().get().get(got);
          int from = (int) range.getOffset();
          Check.same(Arrays.copyOfRange(plain, from, from + got.length), got);
        }
      }
    }
    stored[500_000] ^= 1;
    try (EncryptedInputStream in = remote(key, stored, preamble)) {
      FileRange good = FileRange.createFileRange(0, 1000);
      FileRange bad = FileRange.createFileRange(400_000, 300_000);
      in.readVectored(List.of(bad, good), ByteBuffer::allocate);
      Check.same(1000, good.getData().get().remaining());
      Check.refused("file-tampered", () -> FutureIO.awaitFuture(bad.getData()));
    }
  }

  private static EncryptedInputStream remote(byte[] key, byte[] stored, byte[] preamble) {
    return new EncryptedInputStream(new StoredBytes.Streamed(new FSDataInputStream(new Ranged(stored)), true, null), "f",
        new SegmentCipher(key, header(stored), preamble), stored.length, ReadPolicy.RANDOM, null);
  }

  /** On a remote storage, where every thread waits: what is handed out was read ahead. */
  private static void readsAheadOfTime() throws Exception {
    byte[] key = content(32);
    byte[] preamble = content(Preamble.SIZE_BYTES);
    ByteArrayOutputStream file = new ByteArrayOutputStream();
    file.write(preamble);
    try (OutputStream out = tink(key).newEncryptingStream(file, preamble)) {
      out.write(content(4_000_000));
    }
    byte[] stored = file.toByteArray();
    long taken = ReadAhead.usage()[2];
    try (EncryptedInputStream in = new EncryptedInputStream(
        new StoredBytes.Streamed(new FSDataInputStream(new Bytes(stored)), true, null), "f",
        new SegmentCipher(key, header(stored), preamble), stored.length, ReadPolicy.SEQUENTIAL, null)) {
      ByteArrayOutputStream got = new ByteArrayOutputStream();
      byte[] some = new byte[10_000];
      for (int count = in.read(some); count >= 0; count = in.read(some)) {
        got.write(some, 0, count);
        Thread.sleep(0, 100_000);
      }
      Check.same(content(4_000_000), got.toByteArray());
    }
    taken = ReadAhead.usage()[2] - taken;
    Check.that(taken > 5, "windows that were read ahead: " + taken);
    Check.same(0L, ReadAhead.usage()[1]);
  }

  private static void preamble() throws Exception {
    DatasetKey key = new DatasetKey("a".repeat(63) + "/" + "b".repeat(127), Integer.MAX_VALUE, content(32));
    Preamble made = Preamble.create(key, content(32), new SecureRandom());
    Preamble read = Preamble.parse(made.bytes(), "f");
    Check.same(key.dataset(), read.dataset());
    Check.same(key.version(), read.keyVersion());
    Check.same(made.fileId(), read.fileId());
    Check.same(content(32), read.unwrap(key, "f"));
    Check.that(!key.toString().contains(Arrays.toString(key.key())) && key.toString().endsWith("<32 bytes>"), "prints");
  }

  private static void changedPreamble() throws Throwable {
    DatasetKey key = new DatasetKey("hospital/patients", 12, content(32));
    byte[] good = Preamble.create(key, content(32), new SecureRandom()).bytes();
    for (int i = 0; i < good.length; i++) {
      for (int bit = 0; bit < 8; bit++) {
        byte[] bad = good.clone();
        bad[i] ^= 1 << bit;
        Check.refused(() -> {
          Preamble parsed = Preamble.parse(bad, "f");
          parsed.unwrap(new DatasetKey(parsed.dataset(), parsed.keyVersion(), key.key()), "f");
        });
      }
    }
    Check.refused("file-malformed", () -> Preamble.parse(new byte[511], "f"));
  }

  private static void changes() {
    Changes changes = new Changes();
    changes.add("file:///z/t/part");
    Check.that(changes.cover("file:///z/t/part/x") && changes.cover("file:///z/t/part"), "below");
    Check.that(!changes.cover("file:///z/t/part2") && !changes.cover("file:///z/t"), "beside and above");
    Check.that(changes.anyWithin("file:///z/t") && !changes.anyWithin("file:///z/u"), "within");
    changes.committed("file:///z/t");
    Check.that(!changes.cover("file:///z/t/part"), "committed");
    Check.that(!changes.cover("file://"), "root");
    changes.add("file:///z");
    changes.committed("file:///z/t");
    Check.that(!changes.cover("file:///z/t/part") && changes.cover("file:///z/u"), "committed below a change");
    changes.add("file:///z/t/new");
    Check.that(changes.cover("file:///z/t/new") && !changes.cover("file:///z/t/part"), "changed after a commit");
    changes.add("file:///z");
    Check.that(changes.cover("file:///z/t/part"), "changed above a commit");
  }

  private static void brokenFile() throws Exception {
    ByteArrayOutputStream stored = new ByteArrayOutputStream() {
      @Override
      public synchronized void write(byte[] bytes, int offset, int size) {
        if (count > 600_000) {
          throw new java.io.UncheckedIOException(new IOException("disk full"));
        }
        super.write(bytes, offset, size);
      }
    };
    DatasetKey key = new DatasetKey("hospital/patients", 1, content(32));
    boolean[] completed = {false};
    OutputStream out = new EncryptedOutputStream(
        new FSDataOutputStream(stored, null), key, new SecureRandom(), () -> completed[0] = true);
    boolean failed = false;
    try {
      for (int i = 0; i < 40; i++) {
        out.write(content(50_000));
      }
    } catch (java.io.UncheckedIOException e) {
      failed = true;
    }
    Check.that(failed, "the write fails");
    try {
      out.close();
      throw new AssertionError("close succeeds after a failed write");
    } catch (IOException e) {
      Check.that(!completed[0], "completed");
    }
    byte[] file = stored.toByteArray();
    byte[] preamble = Arrays.copyOf(file, Preamble.SIZE_BYTES);
    SegmentCipher cipher = new SegmentCipher(Preamble.parse(preamble, "f").unwrap(key, "f"), header(file), preamble);
    int last = (file.length - Preamble.SIZE_BYTES - 1) / SegmentCipher.SEGMENT_SIZE_BYTES;
    int from = (int) SegmentCipher.storedStart(last);
    try {
      cipher.decrypt(last, true, file, from, file.length - from, new byte[70_000], 0);
      throw new AssertionError("reads as a whole file");
    } catch (javax.crypto.AEADBadTagException e) {
      // as it should
    }
  }

  private static void badSession() throws Throwable {
    Map<String, Object> zone = Map.of("prefix", "file:///z", "dataset", "a/b", "access", "read");
    Map<String, Object> good =
        Map.of("job", "test", "strict", true, "plaintext_output", "deny", "private_prefixes", List.of(), "zones", List.of(zone));
    Session.parse(good);
    for (Map.Entry<String, Object> wrong : Map.<String, Object>of("strict", "yes", "plaintext_output", "maybe",
        "private_prefixes", List.of("relative"), "zones", List.of(Map.of("prefix", "file:///z"))).entrySet()) {
      Map<String, Object> bad = new java.util.HashMap<>(good);
      bad.put(wrong.getKey(), wrong.getValue());
      try {
        Session.parse(bad);
        throw new AssertionError("accepted: " + wrong);
      } catch (IOException e) {
        // as it should
      }
    }
    Map<String, Object> other = Map.of("prefix", "file:///z/", "dataset", "a/c", "access", "write");
    Map<String, Object> both = new java.util.HashMap<>(good);
    both.put("zones", List.of(zone, other));
    try {
      Session.parse(both);
      throw new AssertionError("one prefix, two datasets");
    } catch (IOException e) {
      // as it should
    }
  }

  private static void noAgent() throws Throwable {
    Configuration conf = TestFiles.configuration();
    FileSystem fs = FileSystem.get(URI.create("file:///"), conf);
    Check.same(ZoneLocalFileSystem.class, fs.getClass());
    Path file = new Path("file:///etc/hostname");
    Path target = new Path(System.getProperty("java.io.tmpdir"), "casemate-must-not-exist");
    List<Check.Body> accesses = List.of(() -> fs.open(file), () -> fs.openFile(file).build().get(),
        () -> fs.create(target), () -> fs.mkdirs(target), () -> fs.exists(file), () -> fs.listStatus(new Path("/")),
        () -> fs.delete(target, true), () -> fs.rename(file, target), () -> FileSystem.getLocal(conf).open(file),
        () -> FileContext.getFileContext(URI.create("file:///"), conf).open(file));
    for (Check.Body access : accesses) {
      Check.refused("agent-unreachable", access);
    }
    Check.that(!new java.io.File(target.toUri().getPath()).exists(), "something was made");
  }
}
