package io.casemate.spark;

import java.io.IOException;
import java.net.URI;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.LocalFileSystem;
import org.apache.hadoop.fs.UnsupportedFileSystemException;
import org.apache.hadoop.util.ReflectionUtils;

/** Finds the real file system of a scheme: {@code casemate.fs.SCHEME.impl}, else what Hadoop would take without us. */
final class StorageFileSystems {
  private static final String S3A = "org.apache.hadoop.fs.s3a.S3AFileSystem";
  private static final String PARTS = "fs.s3a.buffer.dir";

  private StorageFileSystems() {}

  static FileSystem create(URI uri, Configuration conf) throws IOException {
    String scheme = uri.getScheme();
    Configuration inner = new Configuration(conf);
    Class<? extends FileSystem> type = conf.getClass("casemate.fs." + scheme + ".impl", null, FileSystem.class);
    if (type == null) {
      type = scheme.equals("file") ? LocalFileSystem.class : byDefault(scheme, inner);
    }
    if (type == ZoneFileSystem.class || type == ZoneLocalFileSystem.class) {
      throw new UnsupportedFileSystemException("casemate.fs." + scheme + ".impl names a zone file system itself");
    }
    keepPartsPrivate(inner);
    FileSystem storage = ReflectionUtils.newInstance(type, inner);
    storage.initialize(uri, inner);
    return storage;
  }

  /**
   * S3A keeps the parts of a file on local disk until they are uploaded, and finds that through the zones: so, unless the
   * program says otherwise, where the JVM keeps its own temporary files, in TEE-private memory.
   */
  private static void keepPartsPrivate(Configuration inner) {
    String[] sources = inner.getPropertySources(PARTS);
    if (sources == null || sources[sources.length - 1].endsWith("-default.xml")) {
      inner.set(PARTS, System.getProperty("java.io.tmpdir") + "/s3a");
    }
  }

  private static Class<? extends FileSystem> byDefault(String scheme, Configuration inner) throws IOException {
    inner.unset("fs." + scheme + ".impl");
    try {
      return FileSystem.getFileSystemClass(scheme, inner);
    } catch (UnsupportedFileSystemException e) {
      Class<?> s3a = scheme.equals("s3a") ? inner.getClassByNameOrNull(S3A) : null;
      if (s3a == null) {
        throw e;
      }
      return s3a.asSubclass(FileSystem.class);
    }
  }
}
