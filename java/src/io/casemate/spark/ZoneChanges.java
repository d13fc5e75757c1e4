package io.casemate.spark;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.LocatedFileStatus;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RemoteIterator;

/** What changes more than one file: renames, deletions, and the commits that they or a {@code _SUCCESS} file bring. */
final class ZoneChanges {
  private static final Pattern LOG_ENTRY = Pattern.compile("[0-9]+(\\.compact)?");
  private static final long STALE_MILLIS = 7 * 24 * 3_600_000L;

  private final Agent agent;
  private final Places places;
  private final Commits commits;
  private final StoredFiles files;
  private final Manifests manifests;
  private final boolean strict;
  private final FileSystem stored;
  private final FileSystem storage;

  /** @param stored the storage as zones use it, {@code storage} as everything else does */
  ZoneChanges(Agent agent, Places places, Commits commits, StoredFiles files, Manifests manifests, FileSystem stored,
      FileSystem storage) {
    this.files = files;
    this.manifests = manifests;
    this.strict = places.session().strict();
    this.agent = agent;
    this.places = places;
    this.commits = commits;
    this.stored = stored;
    this.storage = storage;
  }

  /** A {@code _SUCCESS} file was closed: the directory it lies in is complete. */
  void succeeded(Place success) throws IOException {
    String directory = Location.parent(success.location());
    if (Place.isStaging(Location.name(directory))) {
      agent.changes().staged(directory); // complete once its partitions were moved: see delete
    } else if (!success.isUnfinished() && Location.within(directory, success.zone().prefix())) {
      try {
        commits.commit(parent(success));
      } catch (IOException e) {
        stored.delete(success.path(), false);
        throw e;
      }
    }
  }

  private static Place parent(Place place) {
    return new Place(place.path().getParent(), Location.parent(place.location()), place.zone(), false);
  }

  static boolean isDirectory(FileSystem system, Path path) throws IOException {
    try {
      return system.getFileStatus(path).isDirectory();
    } catch (FileNotFoundException e) {
      return false;
    }
  }

  boolean rename(Place from, Place to) throws IOException {
    places.checkWriteTree(from);
    places.checkWriteTree(to);
    checkSameKey(from, to);
    boolean intoDirectory = isDirectory(to.inZone() ? stored : storage, to.path());
    Place inside = places.child(to, from.path().getName());
    if (intoDirectory) {
      places.checkWriteTree(inside);
      checkSameKey(from, inside);
    }
    if (!from.inZone()) {
      return storage.rename(from.path(), to.path());
    }
    if (intoDirectory && agent.changes().isDoomed(to.location()) && isDirectory(stored, from.path())) {
      return merge(from, to); // to those who look at the directory after the commit, only what comes now was there
    }
    boolean committed = !from.isUnfinished() && isDirectory(stored, new Path(from.path(), Manifest.DIRECTORY))
        && commits.isCommitted(from);
    Map<String, Manifest.Entry> entries = committed ? commits.checkTree(from) : Map.of();
    Map<String, String> ids = committed ? Map.of() : ownFiles(from, FileIds.destination(from), to.location());
    clearLeftOut(to);
    if (!stored.rename(from.path(), to.path())) {
      return false;
    }
    Place moved = intoDirectory && stored.exists(inside.path()) ? inside : to;
    agent.changes().add(from.location());
    agent.changes().add(moved.location());
    ids.forEach((path, id) -> agent.changes().wrote(moved.location() + path, id));
    markStaged(from.location());
    if (committed) {
      stored.delete(new Path(moved.path(), Manifest.DIRECTORY), true);
      removeUnlisted(moved, entries);
      commits.commitMoved(moved, entries);
      commits.recordDeleted(from);
    } else {
      finished(moved);
    }
    return true;
  }

  /**
   * The files of this job at or below a place that is renamed to another one than they were written for: what is
   * after the place in their path, and their ids.
   */
  private Map<String, String> ownFiles(Place from, String destination, String to) throws IOException {
    Map<String, String> ids = new HashMap<>();
    if (!destination.equals(to)) {
      ownFiles(from, from.location().length(), ids);
    }
    return ids;
  }

  private void ownFiles(Place place, int above, Map<String, String> ids) throws IOException {
    if (isDirectory(stored, place.path())) {
      for (FileStatus entry : stored.listStatus(place.path())) {
        if (!entry.getPath().getName().equals(Manifest.DIRECTORY)) {
          ownFiles(place.child(entry.getPath().getName()), above, ids);
        }
      }
      return;
    }
    String id = agent.changes().fileId(place.location());
    if (id == null) {
      try {
        Preamble preamble = files.preamble(place);
        Place written = new Place(place.path(), FileIds.destination(place), place.zone(), false);
        boolean ours = files.origin(written, preamble) == FileIds.Origin.OURS;
        id = ours || !place.isUnfinished() ? preamble.fileId() : null; // nobody else's unfinished file becomes ours
      } catch (IntegrityException | FileNotFoundException e) {
        return; // the commit refuses it, by its name
      }
    }
    if (id != null) {
      ids.put(place.location().substring(above), id);
    }
  }

  private boolean merge(Place from, Place to) throws IOException {
    for (FileStatus entry : stored.listStatus(from.path())) {
      Place source = from.child(entry.getPath().getName());
      Place target = to.child(entry.getPath().getName());
      if (entry.isDirectory() && isDirectory(stored, target.path())) {
        merge(source, target);
      } else {
        stored.delete(target.path(), true);
        if (!stored.rename(source.path(), target.path())) {
          return false;
        }
        agent.changes().add(target.location());
      }
    }
    markStaged(from.location());
    return stored.delete(from.path(), true);
  }

  /** What nobody committed does not move along: at its new place it would be nobody's. */
  private void removeUnlisted(Place directory, Map<String, Manifest.Entry> entries) throws IOException {
    RemoteIterator<LocatedFileStatus> found = stored.listFiles(directory.path(), true);
    while (found.hasNext()) {
      Path path = found.next().getPath();
      String relative = directory.path().toUri().relativize(path.toUri()).getPath();
      if (!entries.containsKey(relative)) {
        stored.delete(path, false);
      }
    }
  }

  /** Makes room for a file where one lies that is not there to anybody, since its writer never committed it. */
  void clearLeftOut(Place place) throws IOException {
    if (strict && place.inZone() && !place.isUnfinished() && !agent.changes().cover(place.location())) {
      try {
        if (stored.getFileStatus(place.path()).isFile() && manifests.isLeftOut(place)) {
          stored.delete(place.path(), false);
        }
      } catch (FileNotFoundException e) {
        // nothing to make room in
      }
    }
  }

  /** Streams commit with each of their log's entries: what a query did, and how far it has come. */
  private void finished(Place file) throws IOException {
    if (!LOG_ENTRY.matcher(Location.name(file.location())).matches() || file.isUnfinished()) {
      return;
    }
    String log = Location.parent(file.location());
    String directory = Location.parent(log);
    boolean sink = Location.name(log).equals("_spark_metadata");
    boolean checkpoint = Location.name(log).equals("offsets") || Location.name(log).equals("commits");
    if (Location.within(directory, file.zone().prefix()) && (sink || checkpoint)) {
      Place root = parent(parent(file));
      if (sink || stored.exists(new Path(root.path(), "metadata"))) {
        commits.commit(root);
      }
    }
  }

  // Jobs that overwrite

  /** The job replaces what is committed here: it goes with the job's commit, and until then everybody sees it. */
  boolean deleteAtCommit(Place place, Place output) throws IOException {
    places.checkWriteTree(place);
    if (!place.inZone() || !Location.within(place.location(), output.location()) || !commits.isCommitted(output)) {
      return delete(place, true);
    }
    agent.changes().doom(place.location());
    return true;
  }

  void commit(Place directory) throws IOException {
    commits.commit(directory);
  }

  private boolean isDeferred(Place place) {
    String output = agent.changes().overwritten().get();
    return output != null && !place.isUnfinished() && Location.within(place.location(), output)
        && !place.location().equals(output);
  }

  /** Deletes this write job's own unfinished files, others may be writing as well; and what is older than a week. */
  private boolean deleteUnfinished(Place place, String attempt) throws IOException {
    long old = System.currentTimeMillis() - STALE_MILLIS;
    for (FileStatus entry : stored.listStatus(place.path())) {
      if (entry.getPath().getName().equals(attempt) || entry.getModificationTime() < old) {
        stored.delete(entry.getPath(), true);
      }
    }
    if (stored.listStatus(place.path()).length == 0) {
      try {
        stored.delete(place.path(), false);
      } catch (IOException e) {
        // another job has just begun to write
      }
    }
    return true;
  }

  /** Something was moved out of a staging directory: what it went to is committed when that directory goes. */
  private void markStaged(String location) {
    for (String above = Location.parent(location); above.contains("/.spark-staging-");
        above = Location.parent(above)) {
      if (Place.isStaging(Location.name(above))) {
        agent.changes().staged(above);
      }
    }
  }

  /** Renaming moves stored bytes as they are, so both ends must be encrypted for one dataset, or both be plain. */
  private void checkSameKey(Place from, Place to) throws IOException {
    String a = protection(from);
    String b = protection(to);
    if (!a.equals(b)) {
      throw places.refused("zone-access-denied", from.location(),
          "cannot be renamed to " + to.location() + ": from " + a + " to " + b + "; read it and write it anew");
    }
  }

  private static String protection(Place place) {
    return place.inZone() ? place.zone().dataset() : place.isPrivate() ? "TEE-private memory" : "no zone";
  }

  boolean delete(Place place, boolean recursive) throws IOException {
    places.checkWriteTree(place);
    if (!place.inZone()) {
      return storage.delete(place.path(), recursive);
    }
    FileStatus status;
    try {
      status = stored.getFileStatus(place.path());
    } catch (FileNotFoundException e) {
      return false;
    }
    String attempt = agent.changes().attempt().get();
    if (attempt != null && status.isDirectory() && Location.name(place.location()).equals(Manifest.TEMPORARY_DIRECTORY)) {
      return deleteUnfinished(place, attempt);
    }
    if (isDeferred(place) && status.isDirectory()) {
      agent.changes().doom(place.location());
      return true;
    }
    List<Place> committed = new ArrayList<>();
    boolean whole = recursive;
    if (status.isDirectory()) {
      FileStatus[] entries = stored.listStatus(place.path());
      whole |= entries.length == 1 && entries[0].getPath().getName().equals(Manifest.DIRECTORY); // empty to programs
      if (whole && !place.isUnfinished()) {
        findCommitted(place, entries, committed);
        if (!committed.contains(place) && commits.isCommitted(place)) {
          committed.add(place);
        }
      }
    }
    for (Place gone : committed) {
      commits.recordDeleted(gone); // first: a job that is killed now leaves a deleted directory, not a damaged one
    }
    if (!stored.delete(place.path(), whole)) {
      return false;
    }
    agent.changes().add(place.location());
    if (agent.changes().unstaged(place.location())) {
      commits.commit(parent(place));
    }
    return true;
  }

  private void findCommitted(Place directory, FileStatus[] entries, List<Place> found) throws IOException {
    for (FileStatus entry : entries) {
      String name = entry.getPath().getName();
      if (!entry.isDirectory()) {
        continue;
      }
      if (name.equals(Manifest.DIRECTORY)) {
        if (commits.isCommitted(directory)) {
          found.add(directory);
        }
      } else if (!Place.isUnfinishedName(name)) {
        findCommitted(directory.child(name), stored.listStatus(entry.getPath()), found);
      }
    }
  }
}
