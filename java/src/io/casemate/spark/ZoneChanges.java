package io.casemate.spark;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;

/** What changes more than one file: renames, deletions, and the commits that they or a {@code _SUCCESS} file bring. */
final class ZoneChanges {
  private final Agent agent;
  private final Places places;
  private final Commits commits;
  private final FileSystem stored;
  private final FileSystem storage;

  /** @param stored the storage as zones use it, {@code storage} as everything else does */
  ZoneChanges(Agent agent, Places places, Commits commits, FileSystem stored, FileSystem storage) {
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
    boolean committed = !from.isUnfinished() && isDirectory(stored, new Path(from.path(), Manifest.DIRECTORY))
        && commits.isCommitted(from);
    if (committed) {
      commits.checkTree(from);
    }
    if (!stored.rename(from.path(), to.path())) {
      return false;
    }
    Place moved = intoDirectory && stored.exists(inside.path()) ? inside : to;
    agent.changes().add(from.location());
    agent.changes().add(moved.location());
    markStaged(from.location());
    if (committed) {
      stored.delete(new Path(moved.path(), Manifest.DIRECTORY), true);
      commits.commit(moved);
      commits.recordDeleted(from);
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
    if (!stored.delete(place.path(), whole)) {
      return false;
    }
    agent.changes().add(place.location());
    for (Place gone : committed) {
      commits.recordDeleted(gone);
    }
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
