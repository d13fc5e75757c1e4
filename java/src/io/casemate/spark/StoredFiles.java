package io.casemate.spark;

import static org.apache.hadoop.fs.Options.OpenFileOptions.FS_OPTION_OPENFILE_BUFFER_SIZE;
import static org.apache.hadoop.fs.Options.OpenFileOptions.FS_OPTION_OPENFILE_READ_POLICY;

import java.io.EOFException;
import java.io.IOException;
import java.util.Arrays;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.FutureDataInputStreamBuilder;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RawLocalFileSystem;
import org.apache.hadoop.fs.impl.OpenFileParameters;
import org.apache.hadoop.util.functional.FutureIO;

/** Opens encrypted files as they lie on the storage: preamble, keys, cipher. */
final class StoredFiles {
  private final Agent agent;
  private final FileSystem stored;
  private final Places places;
  private final FileSystem.Statistics counter;

  @SuppressWarnings("deprecation") // the class that the storage's own streams count in
  StoredFiles(Agent agent, FileSystem stored, Places places) {
    this.counter = FileSystem.getStatistics(stored.getUri().getScheme(), stored.getClass());
    this.agent = agent;
    this.stored = stored;
    this.places = places;
  }

  /** Called with a file's authentic id before its first byte is handed out. */
  interface IdentityCheck {
    void check(String fileId) throws IOException;
  }

  /** Gives the key that a file's preamble names, or refuses. */
  interface KeyOf {
    DatasetKey find(Preamble preamble) throws IOException;
  }

  /** The plaintext of a file of the place's dataset, {@code storedLength} bytes long on the storage. */
  FSDataInputStream open(Place file, FileStatus status, OpenFileParameters options, IdentityCheck identity)
      throws IOException {
    ReadPolicy policy = ReadPolicy.parse(options.getOptions().get(FS_OPTION_OPENFILE_READ_POLICY, "adaptive"));
    return open(bytes(file, status, options), file.location(), status.getLen(), policy, preamble -> {
      DatasetKey key = key(preamble, file);
      preamble.unwrap(key, file.location()); // before the length: whose file it is comes first
      checkSize(status.getLen(), file.location());
      identity.check(preamble.fileId());
      return key;
    }, agent);
  }

  private StoredBytes bytes(Place file, FileStatus status, OpenFileParameters options) throws IOException {
    if (stored.getClass() == RawLocalFileSystem.class) {
      return new StoredBytes.Local(((RawLocalFileSystem) stored).pathToFile(file.path()).toPath(), counter);
    }
    FutureDataInputStreamBuilder builder = stored.openFile(file.path()).withFileStatus(status)
        .opt(FS_OPTION_OPENFILE_BUFFER_SIZE, options.getBufferSize());
    String policy = options.getOptions().get(FS_OPTION_OPENFILE_READ_POLICY);
    if (policy != null) {
      builder.opt(FS_OPTION_OPENFILE_READ_POLICY, policy);
    }
    return new StoredBytes.Streamed(
        FutureIO.awaitFuture(builder.build()), !(stored instanceof RawLocalFileSystem), counter);
  }

  /** The plaintext of {@code in}, which is closed if it is refused. */
  static FSDataInputStream open(
      StoredBytes in, String name, long storedLength, ReadPolicy policy, KeyOf keys, Agent agent) throws IOException {
    try {
      byte[] start = start(in, storedLength, name);
      Preamble preamble = Preamble.parse(Arrays.copyOf(start, Preamble.SIZE_BYTES), name);
      byte[] fileKey = preamble.unwrap(keys.find(preamble), name);
      byte[] header = Arrays.copyOfRange(start, Preamble.SIZE_BYTES, start.length);
      SegmentCipher cipher;
      try {
        cipher = new SegmentCipher(fileKey, header, preamble.bytes());
      } catch (IllegalArgumentException e) {
        throw new IntegrityException("file-tampered", name, e.getMessage());
      }
      return new FSDataInputStream(new EncryptedInputStream(in, name, cipher, storedLength, policy, agent));
    } catch (IntegrityException refusal) {
      in.close();
      throw agent.report(refusal);
    } catch (IOException | RuntimeException e) {
      in.close();
      throw e;
    }
  }

  private static byte[] start(StoredBytes in, long storedLength, String name) throws IOException {
    byte[] start = new byte[Preamble.SIZE_BYTES + SegmentCipher.HEADER_SIZE_BYTES];
    if (storedLength < SegmentCipher.SMALLEST_FILE_BYTES) {
      byte[] some = new byte[(int) Math.min(4, storedLength)];
      in.readFully(0, some, 0, some.length, true);
      if (!Arrays.equals(some, Arrays.copyOf(new byte[] {'C', 'S', 'M', 'T'}, some.length))) {
        throw new IntegrityException("file-malformed", name, "is not an encrypted file");
      }
      throw new IntegrityException(
          "file-truncated", name, storedLength + " stored bytes, shorter than an empty encrypted file");
    }
    try {
      in.readFully(0, start, 0, start.length, true);
    } catch (EOFException e) {
      throw new IntegrityException("file-truncated", name, "ends within its header", e);
    }
    return start;
  }

  private DatasetKey key(Preamble preamble, Place file) throws IOException {
    String name = file.location();
    if (!preamble.dataset().equals(file.zone().dataset())) {
      throw new IntegrityException("file-wrong-dataset", name,
          "encrypted for dataset " + preamble.dataset() + ", not " + file.zone().dataset());
    }
    return agent.key(preamble.dataset(), preamble.keyVersion(), name);
  }

  private static void checkSize(long storedLength, String name) throws IntegrityException {
    if (SegmentCipher.plaintextSize(storedLength) < 0) {
      throw new IntegrityException(
          "file-truncated", name, storedLength + " bytes is not the size of a whole encrypted file");
    }
  }

  /** What the id of a file says about it. A file that is too short to have one is a writer's, who is not done. */
  FileIds.Origin origin(Place file) throws IOException {
    try {
      return origin(file, preamble(file));
    } catch (IntegrityException e) {
      return e.code().equals("file-truncated") ? FileIds.Origin.PENDING : FileIds.Origin.FOREIGN;
    }
  }

  FileIds.Origin origin(Place file, Preamble preamble) throws IOException {
    return agent.fileIds().origin(
        agent.key(preamble.dataset(), preamble.keyVersion(), file.location()), file.location(), preamble.fileId());
  }

  /** The file's id, authenticated by its wrapped key. */
  String fileId(Place file) throws IOException {
    return preamble(file).fileId();
  }

  /** The preamble of a file, authenticated by its wrapped key. */
  Preamble preamble(Place file) throws IOException {
    String name = file.location();
    try (FSDataInputStream in = stored.open(file.path())) {
      byte[] start = in.readNBytes(Preamble.SIZE_BYTES);
      byte[] magic = {'C', 'S', 'M', 'T'};
      int known = Math.min(start.length, magic.length);
      if (start.length < Preamble.SIZE_BYTES && Arrays.equals(start, 0, known, magic, 0, known)) {
        throw new IntegrityException("file-truncated", name, "ends within its header");
      }
      Preamble preamble = Preamble.parse(start, name);
      preamble.unwrap(key(preamble, file), name);
      return preamble;
    }
  }

  /**
   * The plaintext length of a listed file. It follows from the stored length alone; only a file that claims to be
   * empty is opened, since engines skip empty files unread.
   */
  long plaintextLength(Place file, FileStatus status) throws IOException {
    long storedLength = status.getLen();
    try {
      checkSize(storedLength, file.location());
    } catch (IntegrityException refusal) {
      if (isBeingWritten(file)) {
        return 0;
      }
      throw agent.report(refusal);
    }
    if (storedLength == SegmentCipher.SMALLEST_FILE_BYTES && file.zone().canRead() && !isBeingWritten(file)) {
      try (FSDataInputStream in = open(file, status, new OpenFileParameters().withBufferSize(4096)
          .withOptions(new Configuration(false)), id -> { })) {
        in.read();
      }
    }
    return SegmentCipher.plaintextSize(storedLength);
  }

  /** Unfinished files may have any length; engines pass over the names that begin with a dot, as writers' own do. */
  private boolean isBeingWritten(Place file) {
    return file.zone().canWrite() && (file.isUnfinished() || file.path().getName().startsWith(".")
        || agent.changes().isOpen(file.location()));
  }

  /** Whether a place lies in another zone than its parent: zones nest, manifests do not span them. */
  boolean isOtherZone(Place child) {
    return places.child(new Place(child.path().getParent(), Location.parent(child.location()), child.zone(), false),
        child.path().getName()).zone() != child.zone();
  }
}
