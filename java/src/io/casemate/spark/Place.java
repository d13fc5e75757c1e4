package io.casemate.spark;

import org.apache.hadoop.fs.Path;

/**
 * Where a path leads.
 *
 * @param path the qualified path, as the storage knows it
 * @param location its plain text; below the zone's own prefix when it lies in a zone
 * @param zone the zone it lies in, or null
 * @param isPrivate whether it lies in TEE-private memory, where plaintext may be
 */
record Place(Path path, String location, Zone zone, boolean isPrivate) {
  boolean inZone() {
    return zone != null;
  }

  Place child(String name) {
    Path relative = new Path(null, null, name); // as text: a name may hold a colon
    return new Place(new Path(path, relative), location + "/" + name, zone, isPrivate);
  }

  /** Whether committers keep unfinished files here: such a path is in no manifest. */
  boolean isUnfinished() {
    return inZone() && isUnfinished(Location.relative(location, zone.prefix()));
  }

  static boolean isUnfinished(String relative) {
    for (String name : relative.split("/")) {
      if (isUnfinishedName(name)) {
        return true;
      }
    }
    return false;
  }

  static boolean isUnfinishedName(String name) {
    return name.equals(Manifest.TEMPORARY_DIRECTORY) || isStaging(name);
  }

  /** Where Spark stages partitions that replace others (dynamic partition overwrite). */
  static boolean isStaging(String name) {
    return name.startsWith(".spark-staging-");
  }
}
