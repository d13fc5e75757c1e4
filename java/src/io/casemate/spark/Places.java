package io.casemate.spark;

import java.io.IOException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import org.apache.hadoop.fs.Path;

/** Decides in which zone a path lies and what may be done there. One per file system. */
final class Places {
  private static final int MAX_LINKS = 40; // as Linux

  private final Agent agent;
  private final Session session;
  private final boolean local;

  Places(Agent agent, boolean local) throws IOException {
    this.agent = agent;
    this.session = agent.session();
    this.local = local;
  }

  Session session() {
    return session;
  }

  /**
   * @param path qualified
   * @throws RefusedException if the path leads out of its zone by a symbolic link, or to the manifests
   */
  Place locate(Path path) throws IOException {
    String location = Location.of(path);
    if (Location.hasDots(location)) {
      throw refused("zone-access-denied", location, "'..' leads above the root");
    }
    Place named = place(path, location);
    if (local) {
      String real = real(location);
      if (!real.equals(location)) {
        named = followed(named, real);
      }
    }
    if (named.inZone() && ("/" + Location.relative(named.location(), named.zone().prefix()) + "/")
        .contains("/" + Manifest.DIRECTORY + "/")) {
      throw refused("zone-access-denied", location, Manifest.DIRECTORY + "/ is not for programs");
    }
    return named;
  }

  private Place place(Path path, String location) {
    Zone zone = null;
    for (Zone candidate : session.zones()) {
      if (Location.within(location, candidate.prefix())
          && (zone == null || candidate.prefix().length() > zone.prefix().length())) {
        zone = candidate;
      }
    }
    boolean isPrivate = false;
    for (String prefix : session.privatePrefixes()) {
      isPrivate |= Location.within(location, prefix) && (zone == null || prefix.length() > zone.prefix().length());
    }
    return new Place(path, location, isPrivate ? null : zone, isPrivate);
  }

  /**
   * A path some part of which is a symbolic link. The prefix of a zone may be reached through one; below it there is
   * none, since it could lead a write out of the zone or put one file of the dataset in place of another.
   */
  private Place followed(Place named, String real) throws IOException {
    for (Zone zone : session.zones()) {
      String top = real(zone.prefix());
      if (!Location.within(real, top)) {
        continue;
      }
      String relative = Location.relative(real, top);
      if (named.zone() == zone && !relative.equals(Location.relative(named.location(), zone.prefix()))) {
        throw link(named, real);
      }
      Place found = place(named.path(), relative.isEmpty() ? zone.prefix() : zone.prefix() + "/" + relative);
      if (found.zone() == zone && (named.zone() == null || named.zone() == zone)) {
        return found;
      }
    }
    if (named.inZone()) {
      throw link(named, real);
    }
    boolean isPrivate = false;
    for (String prefix : session.privatePrefixes()) {
      isPrivate |= Location.within(real, real(prefix));
    }
    return new Place(named.path(), named.location(), null, isPrivate);
  }

  private RefusedException link(Place named, String real) {
    return refused("zone-access-denied", named.location(), "a symbolic link in the zone leads to " + real);
  }

  private static String real(String location) throws IOException {
    String real = real(java.nio.file.Path.of("/" + location.substring("file://".length())), 0).toString();
    return real.equals("/") ? "file://" : "file://" + real;
  }

  /** The path with every symbolic link followed, dangling ones too; what does not exist yet is taken as it is. */
  private static java.nio.file.Path real(java.nio.file.Path path, int links) throws IOException {
    try {
      return path.toRealPath();
    } catch (NoSuchFileException e) {
      if (Files.isSymbolicLink(path)) {
        if (links == MAX_LINKS) {
          throw e;
        }
        return real(path.resolveSibling(Files.readSymbolicLink(path)), links + 1);
      }
    } catch (FileSystemException e) {
      if (!String.valueOf(e.getReason()).contains("Not a directory")) {
        throw e;
      }
    }
    return path.getParent() == null ? path : real(path.getParent(), links).resolve(path.getFileName());
  }

  /** Allows a change at the place, or throws. */
  void checkWrite(Place place) throws IOException {
    if (place.inZone()) {
      if (!place.zone().canWrite()) {
        throw refused("zone-access-denied", place.location(), "zone " + place.zone().prefix() + " is only for reading");
      }
    } else if (!place.isPrivate() && !session.plaintextAllowed()) {
      throw refused("outside-zones", place.location(), "outside every zone, and plaintext output is denied");
    }
  }

  /** As {@link #checkWrite}, for what touches a whole directory: no other zone may begin below it. */
  void checkWriteTree(Place place) throws IOException {
    checkWrite(place);
    for (Zone zone : session.zones()) {
      if (zone != place.zone() && Location.within(zone.prefix(), place.location())) {
        throw refused("zone-access-denied", place.location(), "zone " + zone.prefix() + " begins below it");
      }
    }
  }

  /** The zone that a child of a place lies in: another one when zones nest. */
  Place child(Place directory, String name) {
    Place inherited = directory.child(name);
    Place own = place(inherited.path(), inherited.location());
    return own.zone() == directory.zone() ? inherited : own;
  }

  RefusedException refused(String code, String subject, String detail) {
    return agent.report(new RefusedException(code, subject, detail));
  }
}
