package io.casemate.spark;

import java.io.IOException;
import java.net.URI;
import java.net.URISyntaxException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.DelegateToFileSystem;

/**
 * The zones for {@code FileContext} ({@code fs.AbstractFileSystem.file.impl}), which Structured Streaming keeps its
 * checkpoints with: everything comes down to a {@link ZoneFileSystem}.
 */
public final class ZoneAbstractFileSystem extends DelegateToFileSystem {
  /** Hadoop calls this by reflection. */
  public ZoneAbstractFileSystem(URI uri, Configuration conf) throws IOException, URISyntaxException {
    super(uri, new ZoneFileSystem(), conf, uri.getScheme(), false);
  }

  @Override
  public int getUriDefaultPort() {
    return getUri().getScheme().equals("hdfs") ? 8020 : -1;
  }

  @Override
  public boolean isValidName(String path) {
    return !Location.hasDots(path); // colons are fine, as they are in Hadoop's own local file system
  }
}
