package io.casemate.spark;

import java.net.URI;
import java.util.Locale;
import org.apache.hadoop.fs.Path;

/** Paths as text, {@code scheme://authority/decoded/path} without a trailing slash: what zones and manifests name. */
final class Location {
  private Location() {}

  /** The location of a qualified path. */
  static String of(Path qualified) {
    URI uri = qualified.toUri();
    return join(uri.getScheme(), uri.getAuthority(), uri.getPath());
  }

  /** @throws IllegalArgumentException if {@code text} is not an absolute location free of {@code .} and {@code ..}. */
  static String normalise(String text) {
    int authority = text.indexOf("://") + 3;
    int path = text.indexOf('/', authority);
    if (authority < 4 || path < 0) {
      throw new IllegalArgumentException("not an absolute URI: " + text);
    }
    String location = join(text.substring(0, authority - 3), text.substring(authority, path), text.substring(path));
    if (hasDots(location)) {
      throw new IllegalArgumentException("'.' or '..' in " + text);
    }
    return location;
  }

  private static String join(String scheme, String authority, String path) {
    String host = authority == null ? "" : authority.toLowerCase(Locale.ROOT);
    if (scheme.equals("hdfs") && host.endsWith(":8020")) {
      host = host.substring(0, host.length() - 5); // the default port, so that both ways to write it are one zone
    }
    int end = path.length();
    while (end > 0 && path.charAt(end - 1) == '/') {
      end--;
    }
    return scheme + "://" + host + path.substring(0, end);
  }

  static boolean hasDots(String location) {
    return (location + "/").contains("/../") || (location + "/").contains("/./");
  }

  /** Whether {@code location} is {@code prefix} or lies below it. */
  static boolean within(String location, String prefix) {
    return location.startsWith(prefix)
        && (location.length() == prefix.length() || location.charAt(prefix.length()) == '/');
  }

  /** The path relative to an ancestor, without a leading slash; empty for the ancestor itself. */
  static String relative(String location, String ancestor) {
    return location.length() == ancestor.length() ? "" : location.substring(ancestor.length() + 1);
  }

  static String parent(String location) {
    return location.substring(0, location.lastIndexOf('/'));
  }

  static String name(String location) {
    return location.substring(location.lastIndexOf('/') + 1);
  }
}
