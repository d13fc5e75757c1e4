package io.casemate.spark;

import java.io.ObjectStreamException;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.permission.FsPermission;

/** A stored file's status with its plaintext length. Asks for owner and permission only when asked: that may fork. */
final class ZoneFileStatus extends FileStatus {
  private static final long serialVersionUID = 1L;

  private final transient FileStatus stored;

  ZoneFileStatus(FileStatus stored, long length) {
    super(length, stored.isDirectory(), stored.getReplication(), stored.getBlockSize(), stored.getModificationTime(),
        stored.getAccessTime(), null, null, null, stored.getPath());
    this.stored = stored;
  }

  FileStatus stored() {
    return stored;
  }

  @Override
  public FsPermission getPermission() {
    return stored.getPermission();
  }

  @Override
  public String getOwner() {
    return stored.getOwner();
  }

  @Override
  public String getGroup() {
    return stored.getGroup();
  }

  private Object writeReplace() throws ObjectStreamException {
    return new FileStatus(getLen(), isDirectory(), getReplication(), getBlockSize(), getModificationTime(),
        getAccessTime(), getPermission(), getOwner(), getGroup(), getPath());
  }
}
