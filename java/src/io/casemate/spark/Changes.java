package io.casemate.spark;

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

  /** A file that is being written: its length on the storage says nothing yet. */
  void opened(String location) {
    add(location);
    open.add(location);
  }

  void closed(String location) {
    open.remove(location);
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
      if (committed.contains(above)) {
        return false;
      }
      if (above.endsWith("/") || above.indexOf('/', above.indexOf("://") + 3) < 0) {
        return false;
      }
    }
  }

  /** Whether anything at or below {@code location} was changed. */
  boolean anyWithin(String location) {
    return changed.stream().anyMatch(path -> Location.within(path, location));
  }

  /** What lies at or below {@code location} was committed. */
  void committed(String location) {
    changed.removeIf(path -> Location.within(path, location));
    committed.add(location);
  }
}
