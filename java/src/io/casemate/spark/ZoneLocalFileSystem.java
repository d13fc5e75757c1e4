package io.casemate.spark;

import java.io.IOException;
import java.net.URI;
import java.util.EnumSet;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.CreateFlag;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FSDataOutputStreamBuilder;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FutureDataInputStreamBuilder;
import org.apache.hadoop.fs.LocalFileSystem;
import org.apache.hadoop.fs.LocatedFileStatus;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.fs.impl.OpenFileParameters;
import org.apache.hadoop.fs.permission.AclEntry;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.util.Progressable;

/**
 * The zones for {@code file} ({@code fs.file.impl}). Hadoop and Spark cast what is registered there to
 * {@code LocalFileSystem} ({@code FileSystem.getLocal}, which every {@code sc.textFile} calls), so it has to be one;
 * but the "raw" file system that it filters is a {@link ZoneFileSystem}, so that whatever is not overridden here still ends in the zones.
 * The overrides take out the checksum files of Hadoop's class.
 */
public final class ZoneLocalFileSystem extends LocalFileSystem {
  private final ZoneFileSystem zones;

  /** Hadoop calls this by reflection. */
  public ZoneLocalFileSystem() {
    this(new ZoneFileSystem());
  }

  private ZoneLocalFileSystem(ZoneFileSystem zones) {
    super(zones);
    this.zones = zones;
  }

  ZoneFileSystem zones() {
    return zones;
  }

  @Override
  public void initialize(URI uri, Configuration conf) throws IOException {
    super.initialize(uri, conf);
    super.setVerifyChecksum(false);
    super.setWriteChecksum(false);
  }

  @Override
  public java.io.File pathToFile(Path path) {
    return new java.io.File(zones.makeQualified(path).toUri().getPath());
  }

  @Override
  public void setVerifyChecksum(boolean verify) {
    // every segment is verified, always
  }

  @Override
  public void setWriteChecksum(boolean write) {
    // there are none to write
  }

  @Override
  public boolean reportChecksumFailure(Path p, FSDataInputStream in, long at, FSDataInputStream sums, long sumsAt) {
    return false;
  }

  @Override
  public FSDataInputStream open(Path path, int bufferSize) throws IOException {
    return zones.open(path, bufferSize);
  }

  @Override
  public FutureDataInputStreamBuilder openFile(Path path) throws IOException {
    return zones.openFile(path);
  }

  @Override
  protected CompletableFuture<FSDataInputStream> openFileWithOptions(Path path, OpenFileParameters parameters)
      throws IOException {
    return zones.openFileWithOptions(path, parameters);
  }

  @Override
  public FSDataOutputStream append(Path path, int bufferSize, Progressable progress) throws IOException {
    return zones.append(path, bufferSize, progress);
  }

  @Override
  public boolean truncate(Path path, long length) throws IOException {
    return zones.truncate(path, length);
  }

  @Override
  public void concat(Path target, Path[] sources) throws IOException {
    zones.concat(target, sources);
  }

  @Override
  public FSDataOutputStream create(Path path, FsPermission permission, boolean overwrite, int bufferSize,
      short replication, long blockSize, Progressable progress) throws IOException {
    return zones.create(path, permission, overwrite, bufferSize, replication, blockSize, progress);
  }

  @Override
  public FSDataOutputStream create(Path path, FsPermission permission, EnumSet<CreateFlag> flags, int bufferSize,
      short replication, long blockSize, Progressable progress, Options.ChecksumOpt checksum) throws IOException {
    return zones.create(path, permission, flags, bufferSize, replication, blockSize, progress, checksum);
  }

  @Override
  public FSDataOutputStream createNonRecursive(Path path, FsPermission permission, boolean overwrite, int bufferSize,
      short replication, long blockSize, Progressable progress) throws IOException {
    return zones.createNonRecursive(path, permission, overwrite, bufferSize, replication, blockSize, progress);
  }

  @Override
  public FSDataOutputStream createNonRecursive(Path path, FsPermission permission, EnumSet<CreateFlag> flags,
      int bufferSize, short replication, long blockSize, Progressable progress) throws IOException {
    return zones.createNonRecursive(path, permission, flags, bufferSize, replication, blockSize, progress);
  }

  @Override
  @SuppressWarnings("rawtypes")
  public FSDataOutputStreamBuilder createFile(Path path) {
    return zones.createFile(path);
  }

  @Override
  @SuppressWarnings("rawtypes")
  public FSDataOutputStreamBuilder appendFile(Path path) {
    return zones.appendFile(path);
  }

  @Override
  public void setPermission(Path path, FsPermission permission) throws IOException {
    zones.setPermission(path, permission);
  }

  @Override
  public void setOwner(Path path, String user, String group) throws IOException {
    zones.setOwner(path, user, group);
  }

  @Override
  public void setAcl(Path path, List<AclEntry> entries) throws IOException {
    zones.setAcl(path, entries);
  }

  @Override
  public void modifyAclEntries(Path path, List<AclEntry> entries) throws IOException {
    zones.modifyAclEntries(path, entries);
  }

  @Override
  public void removeAcl(Path path) throws IOException {
    zones.removeAcl(path);
  }

  @Override
  public void removeAclEntries(Path path, List<AclEntry> entries) throws IOException {
    zones.removeAclEntries(path, entries);
  }

  @Override
  public void removeDefaultAcl(Path path) throws IOException {
    zones.removeDefaultAcl(path);
  }

  @Override
  public boolean setReplication(Path path, short replication) throws IOException {
    return zones.setReplication(path, replication);
  }

  @Override
  public boolean rename(Path source, Path target) throws IOException {
    return zones.rename(source, target);
  }

  @Override
  public boolean delete(Path path, boolean recursive) throws IOException {
    return zones.delete(path, recursive);
  }

  @Override
  public FileStatus[] listStatus(Path path) throws IOException {
    return zones.listStatus(path);
  }

  @Override
  public RemoteIterator<FileStatus> listStatusIterator(Path path) throws IOException {
    return zones.listStatusIterator(path);
  }

  @Override
  public RemoteIterator<LocatedFileStatus> listLocatedStatus(Path path) throws IOException {
    return zones.listLocatedStatus(path);
  }

  @Override
  public boolean mkdirs(Path path) throws IOException {
    return zones.mkdirs(path);
  }

  @Override
  public void copyFromLocalFile(boolean move, Path source, Path target) throws IOException {
    zones.copyFromLocalFile(move, source, target);
  }

  @Override
  public void copyToLocalFile(boolean move, Path source, Path target) throws IOException {
    zones.copyToLocalFile(move, source, target);
  }

  @Override
  public void copyToLocalFile(Path source, Path target, boolean copyChecksums) throws IOException {
    zones.copyToLocalFile(source, target);
  }

  @Override
  public Path startLocalOutput(Path target, Path temporary) throws IOException {
    return zones.startLocalOutput(target, temporary);
  }

  @Override
  public void completeLocalOutput(Path target, Path temporary) throws IOException {
    zones.completeLocalOutput(target, temporary);
  }

  @Override
  public boolean hasPathCapability(Path path, String capability) throws IOException {
    return zones.hasPathCapability(path, capability);
  }

  @Override
  public boolean supportsSymlinks() {
    return zones.supportsSymlinks();
  }

  @Override
  public void createSymlink(Path target, Path link, boolean createParent) throws IOException {
    zones.createSymlink(target, link, createParent);
  }

  @Override
  public FileStatus getFileLinkStatus(Path path) throws IOException {
    return zones.getFileLinkStatus(path);
  }

  @Override
  public Path getLinkTarget(Path path) throws IOException {
    return zones.getLinkTarget(path);
  }
}
