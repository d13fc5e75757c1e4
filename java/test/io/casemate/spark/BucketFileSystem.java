package io.casemate.spark;

import java.io.IOException;
import java.net.URI;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.BlockLocation;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RawLocalFileSystem;

/** Local files under another scheme, with a host and several blocks to a file: stands for any other storage. */
public final class BucketFileSystem extends RawLocalFileSystem {
  static final int BLOCK_SIZE_BYTES = 50_000;

  private URI uri;

  @Override
  public void initialize(URI name, Configuration conf) throws IOException {
    uri = URI.create(name.getScheme() + "://" + name.getAuthority());
    super.initialize(name, conf);
  }

  @Override
  public URI getUri() {
    return uri == null ? URI.create("bucket://none") : uri;
  }

  @Override
  public String getScheme() {
    return "bucket";
  }

  @Override
  public BlockLocation[] getFileBlockLocations(FileStatus file, long start, long length) {
    if (file.getLen() <= start) {
      return new BlockLocation[0];
    }
    int count = (int) ((file.getLen() + BLOCK_SIZE_BYTES - 1) / BLOCK_SIZE_BYTES);
    int first = (int) (start / BLOCK_SIZE_BYTES);
    int end = (int) Math.min(count, (start + length + BLOCK_SIZE_BYTES - 1) / BLOCK_SIZE_BYTES);
    BlockLocation[] blocks = new BlockLocation[end - first];
    for (int i = first; i < end; i++) {
      long offset = (long) i * BLOCK_SIZE_BYTES;
      String[] hosts = {"host" + i};
      blocks[i - first] = new BlockLocation(hosts, hosts, offset, Math.min(BLOCK_SIZE_BYTES, file.getLen() - offset));
    }
    return blocks;
  }

  @Override
  public BlockLocation[] getFileBlockLocations(Path path, long start, long length) throws IOException {
    return getFileBlockLocations(getFileStatus(path), start, length);
  }
}
