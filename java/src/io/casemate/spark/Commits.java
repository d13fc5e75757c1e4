package io.casemate.spark;

import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.StreamCapabilities;

/**
 * Commits directories: lists their files in a manifest, and records its digest and number away from the storage.
 *
 * <p>A commit adds what its own job wrote to what was committed before. Of two jobs that commit at once the slower one
 * looks again and adds its files to the faster one's; neither takes over what the other has not committed.
 */
final class Commits {
  private static final int ATTEMPTS = 100; // of jobs that commit one directory at once, each attempt lets one through

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
    repeated(() -> {
      Generation recorded = agent.generation(dataset, directory.location());
      agent.record(dataset, directory.location(), new Generation(recorded.number() + 1, Generation.DELETED));
    });
  }

  /**
   * Writes and records the manifest of what was committed in a directory before and of what this job wrote there.
   *
   * @throws IntegrityException if a committed file was changed or deleted by somebody else, or a file lies there that
   *     nobody wrote for its place
   */
  void commit(Place root) throws IOException {
    repeated(() -> attempt(root, null));
  }

  /** Commits a directory that was committed elsewhere and renamed to here, as it was there. */
  void commitMoved(Place root, Map<String, Manifest.Entry> entries) throws IOException {
    repeated(() -> attempt(root, entries));
  }

  private void repeated(Manifests.Check commit) throws IOException {
    for (int attempt = 1; ; attempt++) {
      agent.forget();
      try {
        commit.run();
        return;
      } catch (RefusedException conflict) {
        if (!conflict.code().equals("generation-conflict") || attempt == ATTEMPTS) {
          throw agent.report(conflict);
        }
        sleep(ThreadLocalRandom.current().nextLong(1 + Math.min(500, 10L << Math.min(attempt, 6))));
      }
    }
  }

  private static void sleep(long millis) throws IOException {
    try {
      Thread.sleep(millis);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted while committing", e);
    }
  }

  private void attempt(Place root, Map<String, Manifest.Entry> moved) throws IOException {
    Zone zone = root.zone();
    Generation previous = agent.generation(zone.dataset(), root.location());
    CommitPlan plan = new CommitPlan(agent, stored, files, this, root);
    if (moved == null) {
      try {
        plan.collect(before(root, previous));
      } catch (IntegrityException refusal) {
        agent.forget();
        if (!agent.generation(zone.dataset(), root.location()).equals(previous)) {
          throw new RefusedException("generation-conflict", root.location(), "another job committed and tidied up");
        }
        throw agent.report(refusal);
      }
    }
    long number = previous.number() + 1;
    DatasetKey key = agent.currentKey(zone.dataset(), root.location());
    Map<String, Manifest.Entry> entries = moved == null ? plan.entries() : moved;
    byte[] manifest = Manifest.build(key, root.location(), number, entries);
    Generation next = new Generation(number, Manifest.digest(manifest));
    Path directory = new Path(root.path(), Manifest.DIRECTORY);
    Path file = new Path(directory, Manifest.fileName(next));
    writeManifest(directory, file, manifest);
    try {
      agent.record(zone.dataset(), root.location(), next);
    } catch (RefusedException conflict) {
      stored.delete(file, false);
      throw conflict;
    }
    manifests.remember(zone, Manifest.committed(root.location(), next, entries));
    plan.finish();
    agent.changes().committed(root.location());
    for (Map.Entry<Path, Long> old : manifests.storedGenerations(directory).entrySet()) {
      if (old.getValue() < previous.number()) {
        stored.delete(old.getKey(), false);
      }
    }
  }

  private Map<String, Manifest.Entry> before(Place root, Generation previous) throws IOException {
    if (!previous.recorded() || previous.deleted() || agent.changes().cover(root.location())) {
      return Map.of();
    }
    try {
      return manifests.load(root.zone(), root.location(), previous, root.path()).files();
    } catch (IntegrityException damaged) {
      if (agent.changes().isDoomed(root.location())) {
        return Map.of(); // all of it is overwritten: no reason to keep it broken
      }
      throw damaged;
    }
  }

  /** A committed directory is as it was committed, but for this process's own changes; else throws. */
  Map<String, Manifest.Entry> checkTree(Place root) throws IOException {
    Map<String, Manifest.Entry> entries = new HashMap<>();
    manifests.checked(() -> {
      Generation recorded = agent.generation(root.zone().dataset(), root.location());
      CommitPlan plan = new CommitPlan(agent, stored, files, this, root);
      plan.collect(manifests.load(root.zone(), root.location(), recorded, root.path()).files());
      entries.clear();
      entries.putAll(plan.entries());
    });
    return entries;
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
}
