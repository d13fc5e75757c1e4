package io.casemate.spark;

import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * What this process created, renamed or deleted since the last commit of the directory it lies in. A manifest says
 * nothing of such a path yet: it neither has to list it nor is the path missed when it is gone. Thread-safe.
 */
final class Changes {
  private final Set<String> changed = ConcurrentHashMap.newKeySet();
  private final Set<String> committed = ConcurrentHashMap.newKeySet();
  private final Set<String> open = ConcurrentHashMap.newKeySet();
  private final Set<String> staged = ConcurrentHashMap.newKeySet();
  private final Set<String> doomed = ConcurrentHashMap.newKeySet();
  private final Map<String, String> fileIds = new ConcurrentHashMap<>();
  private final Map<String, Long> commits = new ConcurrentHashMap<>();
  private final ThreadLocal<String> attempt = new ThreadLocal<>();
  private final ThreadLocal<String> overwritten = new ThreadLocal<>();

  /** A file that is being written: its length on the storage says nothing yet. */
  void opened(String location) {
    add(location);
    open.add(location);
  }

  void closed(String location, String fileId) {
    open.remove(location);
    wrote(location, fileId);
  }

  /** This process put the file of this id there. */
  void wrote(String location, String fileId) {
    fileIds.put(location, fileId);
  }

  /** The id of the file that this process put at a place; null: none. */
  String fileId(String location) {
    return fileIds.get(location);
  }

  boolean isOpen(String location) {
    return open.contains(location);
  }

  /** A staging directory whose work is done: the directory above is to be committed once it is deleted. */
  void staged(String location) {
    staged.add(location);
  }

  boolean unstaged(String location) {
    return staged.remove(location);
  }

  void add(String location) {
    if (!cover(location)) {
      changed.add(location);
    }
    committed.removeIf(root -> Location.within(root, location));
  }

  /** Whether {@code location} or a directory above it was changed, and not committed since. */
  boolean cover(String location) {
    if (changed.isEmpty()) {
      return false;
    }
    for (String above = location; ; above = Location.parent(above)) {
      if (changed.contains(above)) {
        return true;
      }
      if (committed.contains(above) || isTop(above)) {
        return false;
      }
    }
  }

  private static boolean isTop(String location) {
    return location.endsWith("/") || location.indexOf('/', location.indexOf("://") + 3) < 0;
  }

  /** Whether anything at or below {@code location} was changed. */
  boolean anyWithin(String location) {
    return changed.stream().anyMatch(path -> Location.within(path, location));
  }

  /** What lies at or below {@code location} was committed. */
  void committed(String location) {
    changed.removeIf(path -> Location.within(path, location));
    doomed.removeIf(path -> Location.within(path, location));
    fileIds.keySet().removeIf(path -> Location.within(path, location));
    committed.add(location);
    commits.merge(location, 1L, Long::sum);
  }

  /** How often this process committed a directory. */
  long commits(String location) {
    return commits.getOrDefault(location, 0L);
  }

  // Deletions that wait for a commit

  /** What is committed at or below {@code location} goes with the next commit of a directory above it, or there. */
  void doom(String location) {
    doomed.add(location);
  }

  boolean isDoomed(String location) {
    if (!doomed.isEmpty()) {
      for (String above = location; !isTop(above); above = Location.parent(above)) {
        if (doomed.contains(above)) {
          return true;
        }
      }
    }
    return false;
  }

  /** Whether something at, above or below {@code location} is to go. */
  boolean anyDoomed(String location) {
    return isDoomed(location) || doomed.stream().anyMatch(path -> Location.within(path, location));
  }

  /** The job that wanted deletions at or below {@code location} failed. */
  void spare(String location) {
    doomed.removeIf(path -> Location.within(path, location));
  }

  /** What this thread's write job calls its directory below {@code _temporary}; null: no such job. */
  ThreadLocal<String> attempt() {
    return attempt;
  }

  /** The committed directory in which this thread's deletions wait for the commit; null: none. */
  ThreadLocal<String> overwritten() {
    return overwritten;
  }
}
