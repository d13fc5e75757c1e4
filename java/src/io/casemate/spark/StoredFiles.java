package io.casemate.spark;

import java.io.EOFException;
import java.io.IOException;
import java.util.Arrays;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;

/** Opens encrypted files as they lie on the storage: preamble, keys, cipher. */
final class StoredFiles {
  private final Agent agent;
  private final FileSystem stored;
  private final Places places;

  StoredFiles(Agent agent, FileSystem stored, Places places) {
    this.agent = agent;
    this.stored = stored;
    this.places = places;
  }

  /** Called with a file's authentic id before its first byte is handed out. */
  interface IdentityCheck {
    void check(String fileId) throws IOException;
  }

  /** The plaintext of a file of the place's dataset, {@code storedLength} bytes long on the storage. */
  FSDataInputStream open(Place file, long storedLength, int bufferSize, IdentityCheck identity) throws IOException {
    String name = file.location();
    FSDataInputStream in = stored.open(file.path(), bufferSize);
    try {
      byte[] start = start(in, storedLength, name);
      Preamble preamble = Preamble.parse(Arrays.copyOf(start, Preamble.SIZE_BYTES), name);
      byte[] fileKey = fileKey(preamble, file);
      checkSize(storedLength, name);
      identity.check(preamble.fileId());
      byte[] header = Arrays.copyOfRange(start, Preamble.SIZE_BYTES, start.length);
      SegmentCipher cipher;
      try {
        cipher = new SegmentCipher(fileKey, header, preamble.bytes());
      } catch (IllegalArgumentException e) {
        throw new IntegrityException("file-tampered", name, e.getMessage());
      }
      return new FSDataInputStream(new EncryptedInputStream(in, name, cipher, storedLength, agent));
    } catch (IntegrityException refusal) {
      in.close();
      throw agent.report(refusal);
    } catch (IOException | RuntimeException e) {
      in.close();
      throw e;
    }
  }

  private static byte[] start(FSDataInputStream in, long storedLength, String name) throws IOException {
    byte[] start = new byte[Preamble.SIZE_BYTES + SegmentCipher.HEADER_SIZE_BYTES];
    if (storedLength < SegmentCipher.SMALLEST_FILE_BYTES) {
      byte[] some = new byte[(int) Math.min(4, storedLength)];
      in.readFully(0, some);
      if (!Arrays.equals(some, Arrays.copyOf(new byte[] {'C', 'S', 'M', 'T'}, some.length))) {
        throw new IntegrityException("file-malformed", name, "is not an encrypted file");
      }
      throw new IntegrityException(
          "file-truncated", name, storedLength + " stored bytes, shorter than an empty encrypted file");
    }
    try {
      in.readFully(0, start);
    } catch (EOFException e) {
      throw new IntegrityException("file-truncated", name, "ends within its header", e);
    }
    return start;
  }

  private byte[] fileKey(Preamble preamble, Place file) throws IOException {
    String name = file.location();
    if (!preamble.dataset().equals(file.zone().dataset())) {
      throw new IntegrityException("file-wrong-dataset", name,
          "encrypted for dataset " + preamble.dataset() + ", not " + file.zone().dataset());
    }
    return preamble.unwrap(agent.key(preamble.dataset(), preamble.keyVersion(), name), name);
  }

  private static void checkSize(long storedLength, String name) throws IntegrityException {
    if (SegmentCipher.plaintextSize(storedLength) < 0) {
      throw new IntegrityException(
          "file-truncated", name, storedLength + " bytes is not the size of a whole encrypted file");
    }
  }

  /** The file's id, authenticated by its wrapped key. */
  String fileId(Place file) throws IOException {
    String name = file.location();
    try (FSDataInputStream in = stored.open(file.path())) {
      byte[] start = new byte[Preamble.SIZE_BYTES];
      in.readFully(0, start);
      Preamble preamble = Preamble.parse(start, name);
      fileKey(preamble, file);
      return preamble.fileId();
    } catch (EOFException e) {
      throw new IntegrityException("file-truncated", name, "ends within its header", e);
    }
  }

  /**
   * The plaintext length of a listed file. It follows from the stored length alone; only a file that claims to be
   * empty is opened, since engines skip empty files unread.
   */
  long plaintextLength(Place file, long storedLength) throws IOException {
    try {
      checkSize(storedLength, file.location());
    } catch (IntegrityException refusal) {
      if (isBeingWritten(file)) {
        return 0;
      }
      throw agent.report(refusal);
    }
    if (storedLength == SegmentCipher.SMALLEST_FILE_BYTES && file.zone().canRead() && !isBeingWritten(file)) {
      try (FSDataInputStream in = open(file, storedLength, 4096, id -> { })) {
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
