package io.casemate.spark;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The content of a committed directory: which files belong to it. Authenticated under a key derived from the dataset
 * key; its SHA-256 and number are recorded away from the storage. No input or output here.
 */
final class Manifest {
  static final String DIRECTORY = "_casemate";
  static final String TEMPORARY_DIRECTORY = "_temporary";
  private static final Pattern FILE_NAME = Pattern.compile("manifest-([0-9]{10,18})-[0-9a-f]{16}\\.json");
  private static final byte[] VERSION = ",\"version\":1}".getBytes(StandardCharsets.US_ASCII);
  private static final byte[] PURPOSE = "casemate:manifest:v1".getBytes(StandardCharsets.US_ASCII);

  /** One file: stored length in bytes and its file id. */
  record Entry(long length, String fileId) {}

  private final String location;
  private final long generation;
  private final String digest;
  private final Map<String, Entry> files;
  private final Map<String, Set<String>> children = new HashMap<>(); // directory -> names of its files and directories

  private Manifest(String location, Generation recorded, Map<String, Entry> files) {
    this.location = location;
    this.generation = recorded.number();
    this.digest = recorded.digest();
    this.files = files;
    for (String path : files.keySet()) {
      for (String child = path; ; ) {
        int slash = child.lastIndexOf('/');
        String directory = slash < 0 ? "" : child.substring(0, slash);
        if (!children.computeIfAbsent(directory, d -> new HashSet<>()).add(child.substring(slash + 1)) || slash < 0) {
          break;
        }
        child = directory;
      }
    }
  }

  /** The manifest that a commit has just written. */
  static Manifest committed(String location, Generation recorded, Map<String, Entry> files) {
    return new Manifest(location, recorded, files);
  }

  String location() {
    return location;
  }

  long generation() {
    return generation;
  }

  Map<String, Entry> files() {
    return files;
  }

  /** Whether this is the manifest of a recorded generation. */
  boolean is(Generation recorded) {
    return generation == recorded.number() && digest.equals(recorded.digest());
  }

  /** The manifest's words for itself in messages. */
  String place() {
    return "generation " + generation + " of " + location;
  }

  /** Names that must be in a directory (a path below the location, "" for itself). */
  Set<String> children(String directory) {
    return children.getOrDefault(directory, Set.of());
  }

  /** With the begin of its digest, so that two jobs that commit at once do not write one file. */
  static String fileName(Generation generation) {
    return String.format("manifest-%010d-%s.json", generation.number(), generation.digest().substring(0, 16));
  }

  /** The number in a manifest's file name; -1 for any other name. */
  static long number(String name) {
    Matcher matcher = FILE_NAME.matcher(name);
    if (!matcher.matches()) {
      return -1;
    }
    long number = Long.parseLong(matcher.group(1));
    return String.format("%010d", number).equals(matcher.group(1)) ? number : -1;
  }

  static String digest(byte[] bytes) {
    try {
      return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("this Java has no SHA-256", e);
    }
  }

  /** The bytes of a manifest file. */
  static byte[] build(DatasetKey key, String location, long generation, Map<String, Entry> files) {
    byte[] message = message(key.dataset(), key.version(), location, generation, files);
    return withMac(message, mac(key, message));
  }

  /** What is authenticated: RFC 8785 JSON, put together by hand, since there may be hundreds of thousands of files. */
  private static byte[] message(
      String dataset, long keyVersion, String location, long generation, Map<String, Entry> files) {
    record Named(byte[] order, String path) {}
    Named[] sorted = new Named[files.size()];
    int count = 0;
    for (String path : files.keySet()) {
      sorted[count++] = new Named(path.getBytes(StandardCharsets.UTF_8), path);
    }
    Arrays.sort(sorted, (a, b) -> Arrays.compareUnsigned(a.order(), b.order()));
    StringBuilder out = new StringBuilder(256 + 160 * count);
    out.append("{\"dataset\":");
    Json.string(dataset, out);
    out.append(",\"files\":[");
    String separator = "";
    for (Named file : sorted) {
      Entry entry = files.get(file.path());
      out.append(separator).append("{\"file_id\":");
      Json.string(entry.fileId(), out);
      out.append(",\"length\":").append(entry.length()).append(",\"path\":");
      Json.string(file.path(), out);
      out.append('}');
      separator = ",";
    }
    out.append("],\"generation\":").append(generation).append(",\"kek\":").append(keyVersion).append(",\"location\":");
    Json.string(location, out);
    out.append(",\"version\":1}");
    return out.toString().getBytes(StandardCharsets.UTF_8);
  }

  private static byte[] withMac(byte[] message, String mac) {
    byte[] member = (",\"mac\":\"" + mac + "\"").getBytes(StandardCharsets.US_ASCII);
    byte[] bytes = Arrays.copyOf(message, message.length + member.length);
    int end = message.length - VERSION.length;
    System.arraycopy(member, 0, bytes, end, member.length);
    System.arraycopy(VERSION, 0, bytes, end + member.length, VERSION.length);
    return bytes;
  }

  private static String mac(DatasetKey key, byte[] message) {
    byte[] macKey = Hkdf.derive(key.key(), new byte[0], PURPOSE);
    return Base64.getEncoder().encodeToString(Hkdf.hmac(macKey, message));
  }

  /** Hands out the dataset key of a version. */
  interface Keys {
    DatasetKey key(int version) throws IOException;
  }

  /**
   * The manifest in {@code bytes}, when it is the recorded one.
   *
   * @throws IntegrityException {@code manifest-rolled-back} for an older one, else {@code manifest-tampered}
   */
  static Manifest verify(byte[] bytes, Generation recorded, String dataset, String location, Keys keys, String name)
      throws IOException {
    // 1. The very bytes that were recorded.       3. For this dataset, place and generation.
    // 2. Of the one form that a writer writes.    4. Authentic under the dataset key.
    Map<String, Entry> files = new HashMap<>();
    long generation;
    int keyVersion;
    String mac;
    byte[] message;
    try {
      Map<String, Object> document = Json.parseObject(bytes);
      generation = (Long) document.get("generation");
      if (!digest(bytes).equals(recorded.digest())) { // (1)
        // Still unverified here: it words the refusal and decides nothing.
        throw generation < recorded.number()
            ? rolledBack(location, recorded.number(), generation)
            : tampered(name, "its digest is not the one recorded for generation " + recorded.number());
      }
      for (Object item : (List<?>) document.get("files")) {
        Map<?, ?> file = (Map<?, ?>) item;
        files.put((String) file.get("path"), new Entry((Long) file.get("length"), (String) file.get("file_id")));
      }
      keyVersion = Math.toIntExact((Long) document.get("kek"));
      mac = (String) document.get("mac");
      message = message(dataset, keyVersion, location, recorded.number(), files); // (2), (3): it must come out the same
      if (mac.length() != 44 || !Arrays.equals(withMac(message, mac), bytes)) {
        throw tampered(name,
            "not the manifest of " + dataset + " at " + location + ", generation " + recorded.number());
      }
    } catch (CasemateException e) {
      throw e;
    } catch (IOException | RuntimeException e) {
      throw tampered(name, "not a manifest: " + e.getMessage());
    }
    byte[] right = mac(keys.key(keyVersion), message).getBytes(StandardCharsets.US_ASCII);
    if (!MessageDigest.isEqual(right, mac.getBytes(StandardCharsets.UTF_8))) {
      throw tampered(name, "does not authenticate under version " + keyVersion + " of " + dataset); // (4)
    }
    return new Manifest(location, recorded, files);
  }

  static IntegrityException rolledBack(String location, long recorded, long found) {
    return new IntegrityException(
        "manifest-rolled-back", location, "rolled back from generation " + recorded + " to " + found);
  }

  private static IntegrityException tampered(String name, String detail) {
    return new IntegrityException("manifest-tampered", name, detail);
  }
}
