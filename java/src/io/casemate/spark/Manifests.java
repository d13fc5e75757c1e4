package io.casemate.spark;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;

/**
 * Strict reads. What governs a path is the nearest directory at or above it, up to the top
 * of its zone, that has a recorded generation; nothing that lies on the storage can change that answer.
 */
final class Manifests {
  private static final int MAX_MANIFEST_BYTES = 1 << 30;
  private static final long SETTLE_MILLIS = 200;

  private final Agent agent;
  private final FileSystem stored;
  private final StoredFiles files;

  Manifests(Agent agent, FileSystem stored, StoredFiles files) {
    this.agent = agent;
    this.stored = stored;
    this.files = files;
  }

  /** A check that may rest on a generation remembered from before another process of the job committed. */
  interface Check {
    void run() throws IOException;
  }

  void checked(Check check) throws IOException {
    try {
      check.run();
    } catch (IntegrityException stale) {
      if (stale.code().equals("manifest-missing")) {
        settle();
      }
      agent.forget();
      try {
        check.run();
      } catch (CasemateException refusal) {
        throw agent.report(refusal);
      }
    }
  }

  /** A writer may be between putting a directory into place and recording it. */
  private static void settle() throws IOException {
    try {
      Thread.sleep(SETTLE_MILLIS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new InterruptedIOException();
    }
  }

  /** The manifest that governs a directory; null when nothing at or above it was committed. */
  private Manifest governing(Place directory) throws IOException {
    Zone zone = directory.zone();
    for (String location = directory.location(); Location.within(location, zone.prefix());
        location = Location.parent(location)) {
      Generation recorded = agent.generation(zone.dataset(), location);
      if (recorded.deleted() && zone.canWrite()) {
        return null; // the job's own: deleted, and not committed anew so far
      }
      if (recorded.recorded()) {
        return load(zone, location, recorded, pathOf(directory, location));
      }
    }
    return null;
  }

  /** The storage's path of a location at or above a place. */
  private static Path pathOf(Place below, String location) {
    Path path = below.path();
    for (String at = below.location(); at.length() > location.length(); at = Location.parent(at)) {
      path = path.getParent();
    }
    return path;
  }

  Manifest load(Zone zone, String location, Generation recorded, Path root) throws IOException {
    String key = zone.dataset() + " " + location;
    Manifest manifest = agent.manifests().get(key);
    if (manifest == null || !manifest.is(recorded)) {
      String name = location + "/" + Manifest.DIRECTORY + "/" + Manifest.fileName(recorded);
      manifest = Manifest.verify(
          readManifest(root, location, recorded), recorded, zone.dataset(), location,
          version -> agent.key(zone.dataset(), version, name), name);
      agent.manifests().put(key, manifest);
    }
    return manifest;
  }

  void remember(Zone zone, Manifest manifest) {
    agent.manifests().put(zone.dataset() + " " + manifest.location(), manifest);
  }

  private byte[] readManifest(Path root, String location, Generation recorded) throws IOException {
    Path directory = new Path(root, Manifest.DIRECTORY);
    Path file = new Path(directory, Manifest.fileName(recorded));
    if (recorded.deleted()) {
      throw new IntegrityException(
          "manifest-missing", location, "was deleted as generation " + recorded.number() + " and not written again");
    }
    try (FSDataInputStream in = stored.open(file)) {
      long size = stored.getFileStatus(file).getLen();
      if (size > MAX_MANIFEST_BYTES) {
        throw new IntegrityException("manifest-tampered", location, "manifest of " + size + " bytes");
      }
      byte[] bytes = new byte[(int) size];
      in.readFully(0, bytes);
      return bytes;
    } catch (CasemateException e) {
      throw e;
    } catch (IOException e) {
      long older = storedGenerations(directory).values().stream().filter(n -> n < recorded.number()).reduce(0L, Math::max);
      if (older > 0) {
        throw Manifest.rolledBack(location, recorded.number(), older);
      }
      throw new IntegrityException("manifest-missing", location,
          Manifest.DIRECTORY + "/" + Manifest.fileName(recorded) + " cannot be read: " + e.getMessage());
    }
  }

  /** The manifest files that lie in a directory, by the number in their name. */
  Map<Path, Long> storedGenerations(Path directory) {
    Map<Path, Long> numbers = new HashMap<>();
    try {
      for (FileStatus status : stored.listStatus(directory)) {
        long number = Manifest.number(status.getPath().getName());
        if (number > 0) {
          numbers.put(status.getPath(), number);
        }
      }
    } catch (IOException e) {
      // none, as far as can be seen
    }
    return numbers;
  }

  /** Whether a manifest has nothing to say about a place: unfinished, or changed by this process and not committed. */
  private boolean isOwn(Place place) {
    return place.zone().canWrite() && (place.isUnfinished() || agent.changes().cover(place.location()));
  }

  /** A file may be opened when it is the one the governing manifest lists, or this job's own. */
  void checkOpen(Place file, long storedLength, String fileId) throws IOException {
    if (isOwn(file)) {
      return;
    }
    checked(() -> {
      Place directory = file.location().equals(file.zone().prefix()) ? file : parent(file);
      Manifest manifest = governing(directory);
      if (manifest == null) {
        if (!file.zone().canWrite()) {
          throw new IntegrityException("manifest-missing", file.location(), "lies in no directory that was committed");
        }
        return;
      }
      if (!lists(manifest, file) && isOurs(file)) {
        return;
      }
      if (!file.zone().canRead()) {
        throw new RefusedException("zone-access-denied", file.location(),
            "zone " + file.zone().prefix() + " is only for writing, and this file was committed by another job");
      }
      checkFile(manifest, file.location(), storedLength, fileId);
    });
  }

  private static Place parent(Place place) {
    return new Place(place.path().getParent(), Location.parent(place.location()), place.zone(), false);
  }

  private static void checkFile(Manifest manifest, String location, long length, String fileId) throws IOException {
    Manifest.Entry entry = manifest.files().get(Location.relative(location, manifest.location()));
    if (entry == null) {
      throw new IntegrityException("manifest-file-foreign", location, "is not in " + manifest.place());
    }
    if (!entry.fileId().equals(fileId)) {
      throw new IntegrityException(
          "manifest-file-swapped", location, "another file than the one in " + manifest.place());
    }
    if (entry.length() != length) {
      throw new IntegrityException(length < entry.length() ? "file-truncated" : "file-tampered", location,
          length + " stored bytes, " + entry.length() + " in " + manifest.place());
    }
  }

  private static boolean lists(Manifest manifest, Place file) {
    return manifest.files().containsKey(Location.relative(file.location(), manifest.location()));
  }

  /** Whether a file was written for its place by this job, and may be seen by it before it is committed. */
  private boolean isOurs(Place file) throws IOException {
    return file.zone().canWrite() && files.origin(file) == FileIds.Origin.OURS;
  }

  /**
   * Whether a file is in no manifest since its writer has not committed it, or never will. Such a file is not there:
   * nobody but its writer's job sees it. Decided by the latest record, since it may have been committed meanwhile.
   */
  boolean isLeftOut(Place file) throws IOException {
    if (isOwn(file) || file.location().equals(file.zone().prefix())) {
      return false;
    }
    boolean[] leftOut = new boolean[1];
    checked(() -> leftOut[0] = awaitsCommit(governing(parent(file)), file, false));
    if (leftOut[0]) {
      agent.forget();
      checked(() -> leftOut[0] = awaitsCommit(governing(parent(file)), file, true));
    }
    return leftOut[0];
  }

  private boolean awaitsCommit(Manifest manifest, Place file, boolean look) throws IOException {
    if (manifest == null || lists(manifest, file)) {
      return false;
    }
    return !look || switch (files.origin(file)) {
      case PENDING -> true;
      case OURS -> !file.zone().canWrite();
      case FOREIGN -> false;
    };
  }

  /**
   * A listing is complete when it has every name that the governing manifest has here, and no other file.
   *
   * @return the entries without files that await their commit
   */
  FileStatus[] checkListing(Place directory, FileStatus[] entries) throws IOException {
    if (isOwn(directory)) {
      return entries;
    }
    Set<String> leftOut = new HashSet<>();
    checked(() -> checkEntries(directory, entries, leftOut, false));
    if (!leftOut.isEmpty()) {
      leftOut.clear();
      agent.forget();
      checked(() -> checkEntries(directory, entries, leftOut, true));
    }
    return leftOut.isEmpty() ? entries : Arrays.stream(entries)
        .filter(entry -> !leftOut.contains(entry.getPath().getName())).toArray(FileStatus[]::new);
  }

  /** @param look whether to look into files that the manifest does not list; else the first one ends the check */
  private void checkEntries(Place directory, FileStatus[] entries, Set<String> leftOut, boolean look)
      throws IOException {
    leftOut.clear();
    Manifest manifest = governing(directory);
    if (manifest == null) {
      if (!directory.zone().canWrite()) {
        throw new IntegrityException(
            "manifest-missing", directory.location(), "neither it nor a directory above it was committed");
      }
      return;
    }
    Set<String> missing = new TreeSet<>(
        manifest.children(Location.relative(directory.location(), manifest.location())));
    for (FileStatus entry : entries) {
      Place place = directory.child(entry.getPath().getName());
      boolean misplaced = entry.isDirectory()
          && manifest.files().containsKey(Location.relative(place.location(), manifest.location()));
      if (!misplaced) { // a directory in place of a file is not that file
        missing.remove(entry.getPath().getName());
      }
      if (!entry.isDirectory() && !isOwn(place)) {
        if (awaitsCommit(manifest, place, look)) {
          leftOut.add(entry.getPath().getName());
          if (!look) {
            return;
          }
        } else if (!look || lists(manifest, place) || !isOurs(place)) {
          checkListed(manifest, place, entry.getLen());
        }
      }
    }
    for (String name : missing) {
      Place place = directory.child(name);
      if (!isOwn(place) && !agent.changes().anyWithin(place.location())) {
        throw new IntegrityException("manifest-file-missing", place.location(), "is in " + manifest.place()
            + " but not there");
      }
    }
  }

  /** The length alone decides; only for the words of a refusal is the file looked into. */
  private void checkListed(Manifest manifest, Place file, long length) throws IOException {
    Manifest.Entry entry = manifest.files().get(Location.relative(file.location(), manifest.location()));
    if (entry == null || entry.length() != length) {
      checkFile(manifest, file.location(), length, entry == null ? null : files.fileId(file));
    }
  }

  /** A path that is not there must not be in the manifest of a zone that this job only reads. */
  void checkAbsent(Place place) throws IOException {
    if (place.zone().canWrite()) {
      return; // another process of the job may be replacing it
    }
    checked(() -> {
      Manifest manifest = governing(place);
      if (manifest != null) {
        String path = Location.relative(place.location(), manifest.location());
        if (manifest.files().containsKey(path) || path.isEmpty() || !manifest.children(path).isEmpty()) {
          throw new IntegrityException(
              "manifest-file-missing", place.location(), "is in " + manifest.place() + " but not there");
        }
      }
    });
  }
}
