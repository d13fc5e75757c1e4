package io.casemate.spark;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The content of a committed directory: which files belong to it. Authenticated under a key derived from the dataset
 * key; its SHA-256 and number are recorded away from the storage. No input or output here.
 */
final class Manifest {
  static final String DIRECTORY = "_casemate";
  static final String TEMPORARY_DIRECTORY = "_temporary";
  private static final Pattern FILE_NAME = Pattern.compile("manifest-([0-9]{10,18})\\.json");
  private static final byte[] PURPOSE = "casemate:manifest:v1".getBytes(StandardCharsets.US_ASCII);

  /** One file: stored length in bytes and its file id. */
  record Entry(long length, String fileId) {}

  private final String location;
  private final long generation;
  private final Map<String, Entry> files;
  private final Map<String, Set<String>> children = new HashMap<>(); // directory -> names of its files and directories

  private Manifest(String location, long generation, Map<String, Entry> files) {
    this.location = location;
    this.generation = generation;
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

  String location() {
    return location;
  }

  long generation() {
    return generation;
  }

  Map<String, Entry> files() {
    return files;
  }

  /** The manifest's words for itself in messages. */
  String place() {
    return "generation " + generation + " of " + location;
  }

  /** Names that must be in a directory (a path below the location, "" for itself). */
  Set<String> children(String directory) {
    return children.getOrDefault(directory, Set.of());
  }

  static String fileName(long generation) {
    return String.format("manifest-%010d.json", generation);
  }

  /** The number in a manifest's file name; -1 for any other name. */
  static long number(String name) {
    Matcher matcher = FILE_NAME.matcher(name);
    return matcher.matches() && fileName(Long.parseLong(matcher.group(1))).equals(name)
        ? Long.parseLong(matcher.group(1)) : -1;
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
    Map<String, Object> document = document(key.dataset(), key.version(), location, generation, files);
    document.put("mac", mac(key, document));
    return Json.canonical(document);
  }

  private static Map<String, Object> document(
      String dataset, long keyVersion, String location, long generation, Map<String, Entry> files) {
    List<String> paths = new ArrayList<>(files.keySet());
    Map<String, byte[]> order = new HashMap<>();
    paths.forEach(path -> order.put(path, path.getBytes(StandardCharsets.UTF_8)));
    paths.sort((a, b) -> Arrays.compareUnsigned(order.get(a), order.get(b)));
    List<Object> entries = new ArrayList<>();
    for (String path : paths) {
      Entry entry = files.get(path);
      entries.add(Map.of("file_id", entry.fileId(), "length", entry.length(), "path", path));
    }
    Map<String, Object> document = new TreeMap<>();
    document.put("version", 1L);
    document.put("dataset", dataset);
    document.put("kek", keyVersion);
    document.put("location", location);
    document.put("generation", generation);
    document.put("files", entries);
    return document;
  }

  private static String mac(DatasetKey key, Map<String, Object> document) {
    byte[] macKey = Hkdf.derive(key.key(), new byte[0], PURPOSE);
    return Base64.getEncoder().encodeToString(Hkdf.hmac(macKey, Json.canonical(document)));
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
    Map<String, Object> document;
    Map<String, Entry> files = new HashMap<>();
    long generation;
    int keyVersion;
    Object mac;
    try {
      document = new TreeMap<>(Json.parseObject(bytes));
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
      mac = document.get("mac");
      Map<String, Object> expected = document( // (2) and (3): rebuilt, it must come out the same
          dataset, keyVersion, location, recorded.number(), files);
      expected.put("mac", mac);
      if (!(mac instanceof String) || !Arrays.equals(Json.canonical(expected), bytes)) {
        throw tampered(name,
            "not the manifest of " + dataset + " at " + location + ", generation " + recorded.number());
      }
    } catch (CasemateException e) {
      throw e;
    } catch (IOException | RuntimeException e) {
      throw tampered(name, "not a manifest: " + e.getMessage());
    }
    document.remove("mac");
    byte[] right = mac(keys.key(keyVersion), document).getBytes(StandardCharsets.UTF_8);
    if (!MessageDigest.isEqual(right, ((String) mac).getBytes(StandardCharsets.UTF_8))) {
      throw tampered(name, "does not authenticate under version " + keyVersion + " of " + dataset); // (4)
    }
    return new Manifest(location, generation, files);
  }

  static IntegrityException rolledBack(String location, long recorded, long found) {
    return new IntegrityException(
        "manifest-rolled-back", location, "rolled back from generation " + recorded + " to " + found);
  }

  private static IntegrityException tampered(String name, String detail) {
    return new IntegrityException("manifest-tampered", name, detail);
  }
}
