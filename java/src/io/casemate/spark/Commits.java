package io.casemate.spark;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.UUID;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.StreamCapabilities;

/** Commits directories: lists their files in a manifest, and records its digest and number away from the storage. */
final class Commits {
  private final Agent agent;
  private final FileSystem stored;
  private final StoredFiles files;
  private final Manifests manifests;

  Commits(Agent agent, FileSystem stored, StoredFiles files, Manifests manifests) {
    this.agent = agent;
    this.stored = stored;
    this.files = files;
    this.manifests = manifests;
  }

  /** Whether a directory was committed, by itself. */
  boolean isCommitted(Place directory) throws IOException {
    Generation recorded = agent.generation(directory.zone().dataset(), directory.location());
    return recorded.recorded() && !recorded.deleted();
  }

  /** Records that a committed directory was deleted by this job, so that nobody can bring an old copy back. */
  void recordDeleted(Place directory) throws IOException {
    String dataset = directory.zone().dataset();
    agent.forget();
    Generation recorded = agent.generation(dataset, directory.location());
    agent.record(dataset, directory.location(), new Generation(recorded.number() + 1, Generation.DELETED));
  }

  /**
   * Writes and records the manifest of everything below a directory. What was committed before and was not changed by
   * this process is taken over as it was; anything that appeared, changed or vanished otherwise is refused.
   */
  void commit(Place root) throws IOException {
    agent.forget();
    Zone zone = root.zone();
    Generation previous = agent.generation(zone.dataset(), root.location());
    Map<String, Manifest.Entry> entries;
    try {
      Map<String, Manifest.Entry> before = previous.recorded() && !previous.deleted()
          && !agent.changes().cover(root.location())
          ? manifests.load(zone, root.location(), previous, root.path()).files() : null;
      entries = new Collector(root, before).collect();
    } catch (CasemateException refusal) {
      throw agent.report(refusal);
    }
    long number = previous.number() + 1;
    DatasetKey key = agent.currentKey(zone.dataset(), root.location());
    byte[] manifest = Manifest.build(key, root.location(), number, entries);
    Path directory = new Path(root.path(), Manifest.DIRECTORY);
    Path file = new Path(directory, Manifest.fileName(number));
    writeManifest(directory, file, manifest);
    try {
      agent.record(zone.dataset(), root.location(), new Generation(number, Manifest.digest(manifest)));
    } catch (RefusedException conflict) {
      stored.delete(file, false);
      throw conflict;
    }
    agent.changes().committed(root.location());
    for (long old : manifests.storedGenerations(directory)) {
      if (old < previous.number()) {
        stored.delete(new Path(directory, Manifest.fileName(old)), false);
      }
    }
  }

  /** A committed directory is as it was committed, but for this process's own changes; else throws. */
  void checkTree(Place root) throws IOException {
    manifests.checked(() -> {
      Generation recorded = agent.generation(root.zone().dataset(), root.location());
      new Collector(root, manifests.load(root.zone(), root.location(), recorded, root.path()).files()).collect();
    });
  }

  private void writeManifest(Path directory, Path file, byte[] manifest) throws IOException {
    stored.mkdirs(directory);
    Path temporary = new Path(directory, "." + file.getName() + "." + UUID.randomUUID());
    try {
      try (FSDataOutputStream out = stored.create(temporary, false)) {
        out.write(manifest);
        if (out.hasCapability(StreamCapabilities.HSYNC)) {
          out.hsync();
        }
      }
      stored.delete(file, false); // left by a commit that was not recorded
      if (!stored.rename(temporary, file)) {
        throw new IOException("cannot rename " + temporary + " to " + file);
      }
    } catch (IOException e) {
      stored.delete(temporary, false);
      throw e;
    }
  }

  /** Walks a directory for a commit. */
  private final class Collector {
    private final Place root;
    private final Map<String, Manifest.Entry> before; // null: everything is this job's
    private final Map<String, Manifest.Entry> found = new HashMap<>();

    Collector(Place root, Map<String, Manifest.Entry> before) {
      this.root = root;
      this.before = before;
    }

    Map<String, Manifest.Entry> collect() throws IOException {
      walk(root);
      if (before != null) {
        Set<String> missing = new HashSet<>(before.keySet());
        missing.removeAll(found.keySet());
        missing.removeIf(path -> agent.changes().cover(root.location() + "/" + path));
        if (!missing.isEmpty()) {
          String path = new TreeSet<>(missing).first();
          throw new IntegrityException("manifest-file-missing", root.location() + "/" + path,
              "was committed before and is not there");
        }
      }
      return found;
    }

    private void walk(Place directory) throws IOException {
      FileStatus[] entries;
      try {
        entries = stored.listStatus(directory.path());
      } catch (FileNotFoundException e) {
        return;
      }
      for (FileStatus entry : entries) {
        String name = entry.getPath().getName();
        Place place = directory.child(name);
        if (name.equals(Manifest.DIRECTORY) || Place.isUnfinishedName(name) || files.isOtherZone(place)) {
          continue;
        }
        if (entry.isDirectory()) {
          walk(place);
        } else {
          String path = Location.relative(place.location(), root.location());
          found.put(path, entry(place, path, entry.getLen()));
        }
      }
    }

    private Manifest.Entry entry(Place file, String path, long length) throws IOException {
      if (before != null && !agent.changes().cover(file.location())) {
        Manifest.Entry entry = before.get(path);
        if (entry == null) {
          throw new IntegrityException("manifest-file-foreign", file.location(),
              "was neither committed before nor written or renamed by this process");
        }
        if (entry.length() != length) {
          throw new IntegrityException("manifest-file-swapped", file.location(), length + " stored bytes, "
              + entry.length() + " when it was committed");
        }
        return entry;
      }
      return new Manifest.Entry(length, files.fileId(file));
    }
  }
}
