package io.casemate.spark;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;

/** What one commit of a directory lists, and what goes once it is recorded. */
final class CommitPlan {
  private final Agent agent;
  private final FileSystem stored;
  private final StoredFiles files;
  private final Commits commits;
  private final Place root;
  private final Map<String, Manifest.Entry> entries = new HashMap<>();
  private final List<Place> obsolete = new ArrayList<>(); // files that an overwriting job replaces
  private boolean isUntouched; // nothing below waits to be deleted with this commit
  private final List<Place> apart = new ArrayList<>(); // directories below with a record of their own

  CommitPlan(Agent agent, FileSystem stored, StoredFiles files, Commits commits, Place root) {
    this.agent = agent;
    this.stored = stored;
    this.files = files;
    this.commits = commits;
    this.root = root;
  }

  Map<String, Manifest.Entry> entries() {
    return entries;
  }

  /** @param before what was committed last */
  void collect(Map<String, Manifest.Entry> before) throws IOException {
    isUntouched = !agent.changes().anyDoomed(root.location());
    walk(root, before);
    TreeSet<String> missing = new TreeSet<>(before.keySet());
    missing.removeAll(entries.keySet());
    for (String path : missing) {
      String location = root.location() + "/" + path;
      if (!agent.changes().cover(location) && !agent.changes().isDoomed(location) && !isApart(location)
          && !isState(path, before)) {
        throw new IntegrityException("manifest-file-missing", location, "was committed before and is not there");
      }
    }
  }

  /** State of a streaming query is cleaned up by its executors; Spark itself misses what it still needs. */
  private static boolean isState(String path, Map<String, Manifest.Entry> before) {
    return path.startsWith("state/") && before.containsKey("metadata");
  }

  private boolean isApart(String location) throws IOException {
    for (String above = Location.parent(location); above.length() > root.location().length();
        above = Location.parent(above)) {
      if (agent.generation(root.zone().dataset(), above).recorded()) {
        return true;
      }
    }
    return false;
  }

  private void walk(Place directory, Map<String, Manifest.Entry> before) throws IOException {
    FileStatus[] found;
    try {
      found = stored.listStatus(directory.path());
    } catch (FileNotFoundException e) {
      return;
    }
    if (directory != root && holdsManifests(found) && commits.isCommitted(directory)) {
      apart.add(directory);
      return;
    }
    String relative = directory == root ? "" : Location.relative(directory.location(), root.location()) + "/";
    for (FileStatus status : found) {
      String name = status.getPath().getName();
      Manifest.Entry known = before.get(relative + name);
      if (known != null && !status.isDirectory() && known.length() == status.getLen() && isUntouched
          && !agent.changes().cover(directory.location() + "/" + name)) {
        entries.put(relative + name, known); // most files of most commits: nothing else is made of them
        continue;
      }
      Place place = directory.child(name);
      if (name.equals(Manifest.DIRECTORY) || Place.isUnfinishedName(name) || files.isOtherZone(place)) {
        continue;
      }
      if (status.isDirectory()) {
        walk(place, before);
      } else {
        String path = Location.relative(place.location(), root.location());
        Manifest.Entry entry = entry(place, before.get(path), status.getLen());
        if (entry != null) {
          entries.put(path, entry);
        }
      }
    }
  }

  private static boolean holdsManifests(FileStatus[] found) {
    for (FileStatus status : found) {
      if (status.isDirectory() && status.getPath().getName().equals(Manifest.DIRECTORY)) {
        return true;
      }
    }
    return false;
  }

  /** The file's entry; null when it is not to be listed. */
  private Manifest.Entry entry(Place file, Manifest.Entry before, long length) throws IOException {
    boolean changed = agent.changes().cover(file.location());
    boolean doomed = agent.changes().isDoomed(file.location());
    if (before != null && before.length() == length && !changed && !doomed) {
      return before;
    }
    FileIds.Origin origin = FileIds.Origin.FOREIGN;
    try {
      Preamble preamble = files.preamble(file);
      origin = files.origin(file, preamble);
      boolean known = before != null && before.fileId().equals(preamble.fileId());
      if (!(doomed && known)
          && (origin == FileIds.Origin.OURS || preamble.fileId().equals(agent.changes().fileId(file.location())))) {
        return new Manifest.Entry(length, preamble.fileId());
      }
    } catch (IntegrityException damaged) {
      if (!doomed && !damaged.code().equals("file-truncated")) {
        throw damaged;
      }
      origin = doomed ? FileIds.Origin.FOREIGN : FileIds.Origin.PENDING;
    }
    if (doomed) {
      if (before != null || origin == FileIds.Origin.FOREIGN) {
        obsolete.add(file);
      }
      return null;
    }
    if (before != null && !changed) {
      throw new IntegrityException("manifest-file-swapped", file.location(),
          length + " stored bytes, " + before.length() + " when it was committed");
    }
    if (origin == FileIds.Origin.FOREIGN) {
      throw new IntegrityException("manifest-file-foreign", file.location(),
          "was neither committed before nor written here by this job");
    }
    return null; // awaits its own job's commit, or was left by a job that was killed
  }

  /** Deletes what the commit replaced, now that nobody who looks it up anew can miss it. */
  void finish() throws IOException {
    for (Place file : obsolete) {
      stored.delete(file.path(), false);
      for (Path above = file.path().getParent(); !above.equals(root.path()) && isEmpty(above); above = above.getParent()) {
        stored.delete(above, false);
      }
    }
    for (Place directory : apart) {
      if (agent.changes().isDoomed(directory.location())) {
        commits.recordDeleted(directory);
        stored.delete(directory.path(), true);
      }
    }
  }

  private boolean isEmpty(Path directory) {
    try {
      return stored.listStatus(directory).length == 0;
    } catch (IOException e) {
      return false;
    }
  }
}
