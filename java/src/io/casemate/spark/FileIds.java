package io.casemate.spark;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.Base64;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * File ids that say for which place, and by which job, a file was written:
 * {@code job (5 bytes) | random (5) | tag (6)}, under K = HKDF(dataset key, "casemate:file-id:v1"). {@code job} is the
 * begin of HMAC(K, "job" 0 job id), {@code tag} of HMAC(K, "file" 0 job random location). A commit takes what its own
 * job wrote for that very place; a strict reader leaves out what some writer has not committed. Thread-safe.
 */
final class FileIds {
  private static final byte[] PURPOSE = "casemate:file-id:v1".getBytes(StandardCharsets.US_ASCII);
  private static final int JOB_SIZE_BYTES = 5;
  private static final int FIXED_SIZE_BYTES = 10;
  private static final int SIZE_BYTES = 16;
  // What Spark's checkpoint files are called until they are renamed to what is in the parentheses.
  private static final Pattern TEMPORARY = Pattern.compile("\\.(.+)\\.[0-9a-f-]{36}\\.(?:tmp|TID[0-9]+\\.tmp)");

  /** What a file's id says, seen from a place and a job. */
  enum Origin {
    /** Written by this job for this place. */
    OURS,
    /** Written by another job for this place, or not finished. */
    PENDING,
    /** Not written for this place. */
    FOREIGN
  }

  private record Keys(byte[] key, byte[] job) {}

  private final String job;
  private final Map<String, Keys> keys = new ConcurrentHashMap<>();

  FileIds(String job) {
    this.job = job;
  }

  /** A fresh id (base64) for a file that shall lie at {@code location}. */
  String create(DatasetKey key, String location, SecureRandom random) {
    Keys own = keys(key);
    byte[] id = new byte[SIZE_BYTES];
    random.nextBytes(id);
    System.arraycopy(own.job(), 0, id, 0, JOB_SIZE_BYTES);
    byte[] tag = tag(own, id, location);
    System.arraycopy(tag, 0, id, FIXED_SIZE_BYTES, SIZE_BYTES - FIXED_SIZE_BYTES);
    return Base64.getEncoder().encodeToString(id);
  }

  /** What an authentic id says about the file at {@code location}; {@code key} is of the version the file names. */
  Origin origin(DatasetKey key, String location, String fileId) {
    Keys own = keys(key);
    byte[] id = Base64.getDecoder().decode(fileId);
    byte[] tag = Arrays.copyOf(tag(own, id, location), SIZE_BYTES - FIXED_SIZE_BYTES);
    if (!MessageDigest.isEqual(tag, Arrays.copyOfRange(id, FIXED_SIZE_BYTES, SIZE_BYTES))) {
      return Origin.FOREIGN;
    }
    return MessageDigest.isEqual(own.job(), Arrays.copyOf(id, JOB_SIZE_BYTES)) ? Origin.OURS : Origin.PENDING;
  }

  private Keys keys(DatasetKey key) {
    return keys.computeIfAbsent(key.dataset() + "/" + key.version(), name -> {
      byte[] derived = Hkdf.derive(key.key(), new byte[0], PURPOSE);
      byte[] mac = Hkdf.hmac(derived, ("job\0" + job).getBytes(StandardCharsets.UTF_8));
      return new Keys(derived, Arrays.copyOf(mac, JOB_SIZE_BYTES));
    });
  }

  private static byte[] tag(Keys keys, byte[] id, String location) {
    return Hkdf.hmac(keys.key(), "file\0".getBytes(StandardCharsets.US_ASCII),
        Arrays.copyOf(id, FIXED_SIZE_BYTES), location.getBytes(StandardCharsets.UTF_8));
  }

  /**
   * Where a file that is created at a place is meant to lie in the end: Hadoop's committers create it below
   * {@code _temporary}, Spark below {@code .spark-staging-}, and checkpoint files have a temporary name.
   */
  static String destination(Place place) {
    String prefix = place.zone().prefix();
    String[] names = Location.relative(place.location(), prefix).split("/");
    StringBuilder path = new StringBuilder(prefix);
    for (int i = 0; i < names.length; i++) {
      String name = names[i];
      if (Place.isStaging(name)) {
        continue;
      }
      if (name.equals(Manifest.TEMPORARY_DIRECTORY)) {
        boolean running = i + 2 < names.length && names[i + 2].equals(Manifest.TEMPORARY_DIRECTORY);
        i += running ? 3 : 2; // _temporary/0/_temporary/attempt_x or _temporary/0/task_x
        continue;
      }
      Matcher temporary = TEMPORARY.matcher(name);
      path.append('/').append(i == names.length - 1 && temporary.matches() ? temporary.group(1) : name);
    }
    return path.toString();
  }
}
