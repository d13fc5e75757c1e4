package io.casemate.spark;

import static org.apache.hadoop.fs.Options.OpenFileOptions.FS_OPTION_OPENFILE_STANDARD_OPTIONS;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.net.URI;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.BlockLocation;
import org.apache.hadoop.fs.CommonPathCapabilities;
import org.apache.hadoop.fs.CreateFlag;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileChecksum;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.FileUtil;
import org.apache.hadoop.fs.FsStatus;
import org.apache.hadoop.fs.LocalFileSystem;
import org.apache.hadoop.fs.MultipartUploaderBuilder;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.StorageStatistics;
import org.apache.hadoop.fs.impl.AbstractFSBuilderImpl;
import org.apache.hadoop.fs.impl.OpenFileParameters;
import org.apache.hadoop.fs.permission.FsAction;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.security.AccessControlException;
import org.apache.hadoop.security.token.DelegationTokenIssuer;
import org.apache.hadoop.security.token.Token;
import org.apache.hadoop.util.LambdaUtils;
import org.apache.hadoop.util.Progressable;

/**
 * Stands in front of the file system of a scheme ({@code fs.hdfs.impl}, {@code fs.s3a.impl}, …): below a zone every
 * byte is encrypted, outside the zones reading is plain and writing refused. For {@code file} see {@link ZoneLocalFileSystem}.
 *
 * <p>It extends {@code FileSystem} and nothing that forwards calls, so that a method of a newer Hadoop fails, or comes
 * down to the methods here, instead of reaching the storage unseen.
 */
public final class ZoneFileSystem extends FileSystem {
  private static final String SUCCESS = "_SUCCESS";

  private final SecureRandom random = new SecureRandom();
  private FileSystem storage; // outside the zones
  private FileSystem stored; // inside: the same without checksum files, since every segment has a tag
  private volatile Guard guard;

  private Guard guard() throws IOException {
    Guard found = guard;
    if (found == null) {
      found = Guard.create(stored, storage);
      guard = found;
    }
    return found;
  }

  @Override
  public void initialize(URI uri, Configuration conf) throws IOException {
    super.initialize(uri, conf);
    setConf(conf);
    storage = StorageFileSystems.create(uri, conf);
    stored = storage instanceof LocalFileSystem checked ? checked.getRawFileSystem() : storage;
  }

  @Override
  public URI getUri() {
    return storage.getUri();
  }

  @Override
  public String getScheme() {
    return storage.getUri().getScheme();
  }

  @Override
  protected int getDefaultPort() {
    return storage != null && getScheme().equals("hdfs") ? 8020 : 0;
  }

  @Override
  public Path getHomeDirectory() {
    return storage.getHomeDirectory();
  }

  @Override
  public Path getWorkingDirectory() {
    return storage.getWorkingDirectory();
  }

  @Override
  public void setWorkingDirectory(Path directory) {
    storage.setWorkingDirectory(directory);
  }

  private Place locate(Path path) throws IOException {
    checkPath(path);
    return guard().places().locate(makeQualified(path));
  }

  private Place locateForWrite(Path path) throws IOException {
    Place place = locate(path);
    guard().places().checkWrite(place);
    return place;
  }

  private FileSystem systemFor(Place place) {
    return place.inZone() ? stored : storage;
  }

  // Reading

  @Override
  public FSDataInputStream open(Path path, int bufferSize) throws IOException {
    Place place = locate(path);
    if (!place.inZone()) {
      return storage.open(path, bufferSize);
    }
    return open(place, storedStatus(place),
        new OpenFileParameters().withBufferSize(bufferSize).withOptions(new Configuration(false)));
  }

  private FSDataInputStream open(Place place, FileStatus status, OpenFileParameters options) throws IOException {
    if (status.isDirectory()) {
      throw new FileNotFoundException(place.location() + ": is a directory");
    }
    return guard().files().open(place, status, options, fileId -> {
      if (guard().strict()) {
        guard().manifests().checkOpen(place, status.getLen(), fileId);
      }
    });
  }

  private FileStatus storedStatus(Place place) throws IOException {
    try {
      return stored.getFileStatus(place.path());
    } catch (FileNotFoundException e) {
      if (guard().strict()) {
        guard().manifests().checkAbsent(place);
      }
      throw e;
    }
  }

  /** Lengths that a program says it knows are never believed; a read policy is heeded, and passed on to the storage. */
  @Override
  protected CompletableFuture<FSDataInputStream> openFileWithOptions(Path path, OpenFileParameters parameters)
      throws IOException {
    Place place = locate(path);
    if (!place.inZone()) {
      return super.openFileWithOptions(path, parameters); // comes down to open, above
    }
    AbstractFSBuilderImpl.rejectUnknownMandatoryKeys(
        parameters.getMandatoryKeys(), FS_OPTION_OPENFILE_STANDARD_OPTIONS, "for " + path);
    return LambdaUtils.eval(new CompletableFuture<>(), () -> open(place, storedStatus(place), parameters));
  }

  @Override
  public FileStatus getFileStatus(Path path) throws IOException {
    Place place = locate(path);
    if (!place.inZone()) {
      return storage.getFileStatus(path);
    }
    FileStatus status = storedStatus(place);
    if (guard().strict() && !status.isDirectory() && guard().manifests().isLeftOut(place)) {
      throw new FileNotFoundException(place.location() + ": was never committed");
    }
    return plain(place, status);
  }

  private FileStatus plain(Place place, FileStatus status) throws IOException {
    return !place.inZone() || status.isDirectory()
        ? status : new ZoneFileStatus(status, guard().files().plaintextLength(place, status));
  }

  @Override
  public FileStatus[] listStatus(Path path) throws IOException {
    Place place = locate(path);
    if (place.inZone()) {
      FileStatus status = storedStatus(place);
      if (!status.isDirectory()) {
        return new FileStatus[] {plain(place, status)};
      }
    }
    List<FileStatus> visible = new ArrayList<>();
    for (FileStatus status : systemFor(place).listStatus(path)) {
      if (!place.inZone() || !status.getPath().getName().equals(Manifest.DIRECTORY)) {
        visible.add(status);
      }
    }
    FileStatus[] listing = visible.toArray(new FileStatus[0]);
    if (place.inZone() && guard().strict()) {
      listing = guard().manifests().checkListing(place, listing);
    }
    for (int i = 0; i < listing.length; i++) {
      String name = listing[i].getPath().getName();
      boolean itself = !listing[i].isDirectory() && name.equals(place.path().getName()) && !place.inZone();
      listing[i] = plain(itself ? place : guard().places().child(place, name), listing[i]);
    }
    return listing;
  }

  @Override
  public BlockLocation[] getFileBlockLocations(FileStatus file, long start, long size) throws IOException {
    if (file == null) {
      return null;
    }
    if (start < 0 || size < 0) {
      throw new IllegalArgumentException("start " + start + ", length " + size);
    }
    Place place = locate(file.getPath());
    if (!place.inZone() || file.isDirectory()) {
      return storage.getFileBlockLocations(file, start, size);
    }
    if (start >= file.getLen()) {
      return new BlockLocation[0];
    }
    FileStatus status = file instanceof ZoneFileStatus known && known.stored() != null
        ? known.stored() : stored.getFileStatus(file.getPath());
    return Blocks.ofPlaintext(
        stored.getFileBlockLocations(status, 0, status.getLen()), file.getLen(), start, start + size);
  }

  /** None: a checksum of the stored bytes would say nothing of the plaintext, and differ between equal files. */
  @Override
  public FileChecksum getFileChecksum(Path path, long length) throws IOException {
    return locate(path).inZone() ? null : storage.getFileChecksum(path, length);
  }

  @Override
  public FileChecksum getFileChecksum(Path path) throws IOException {
    return getFileChecksum(path, Long.MAX_VALUE);
  }

  @Override
  public void access(Path path, FsAction mode) throws IOException {
    Place place = locate(path);
    if (place.inZone() && mode.implies(FsAction.WRITE) && !place.zone().canWrite()) {
      throw new AccessControlException(
          "zone-access-denied: " + place.location() + ": zone " + place.zone().prefix() + " is only for reading");
    }
    systemFor(place).access(path, mode);
  }

  // Writing

  @Override
  public FSDataOutputStream create(Path path, FsPermission permission, boolean overwrite, int bufferSize,
      short replication, long blockSize, Progressable progress) throws IOException {
    Place place = locateForWrite(path);
    if (!place.inZone()) {
      return storage.create(path, permission, overwrite, bufferSize, replication, blockSize, progress);
    }
    DatasetKey key = guard().agent().currentKey(place.zone().dataset(), place.location());
    return encrypted(place, key,
        stored.create(path, permission, overwrite, bufferSize, replication, blockSize, progress));
  }

  @Override
  public FSDataOutputStream createNonRecursive(Path path, FsPermission permission, EnumSet<CreateFlag> flags,
      int bufferSize, short replication, long blockSize, Progressable progress) throws IOException {
    Place place = locateForWrite(path);
    if (flags.contains(CreateFlag.APPEND)) {
      throw unsupported("append", path);
    }
    FileSystem system = systemFor(place);
    DatasetKey key =
        place.inZone() ? guard().agent().currentKey(place.zone().dataset(), place.location()) : null;
    FSDataOutputStream out =
        system.createNonRecursive(path, permission, flags, bufferSize, replication, blockSize, progress);
    return place.inZone() ? encrypted(place, key, out) : out;
  }

  private FSDataOutputStream encrypted(Place place, DatasetKey key, FSDataOutputStream out) throws IOException {
    Changes changes = guard().agent().changes();
    changes.opened(place.location());
    String fileId = guard().agent().fileIds().create(key, FileIds.destination(place), random);
    return new FSDataOutputStream(new EncryptedOutputStream(out, key, random, fileId, () -> {
      changes.closed(place.location(), fileId);
      if (place.path().getName().equals(SUCCESS)) {
        guard().changes().succeeded(place);
      }
    }), null);
  }

  @Override
  public FSDataOutputStream append(Path path, int bufferSize, Progressable progress) throws IOException {
    if (locateForWrite(path).inZone()) {
      throw unsupported("append", path);
    }
    return storage.append(path, bufferSize, progress);
  }

  @Override
  public boolean truncate(Path path, long length) throws IOException {
    if (locateForWrite(path).inZone()) {
      throw unsupported("truncate", path);
    }
    return storage.truncate(path, length);
  }

  @Override
  public void concat(Path target, Path[] sources) throws IOException {
    throw unsupported("concat", target);
  }

  private static UnsupportedOperationException unsupported(String what, Path path) {
    return new UnsupportedOperationException(
        "operation-unsupported: " + path + ": " + what + " cannot be done on encrypted files; write a new one");
  }

  @Override
  public boolean mkdirs(Path path, FsPermission permission) throws IOException {
    Place place = locate(path);
    FileSystem system = systemFor(place);
    if (!place.inZone() && ZoneChanges.isDirectory(system, path)) {
      return true; // changes nothing
    }
    guard().places().checkWrite(place);
    return system.mkdirs(path, permission);
  }

  @Override
  public boolean rename(Path source, Path target) throws IOException {
    return guard().changes().rename(locate(source), locate(target));
  }

  @Override
  public boolean delete(Path path, boolean recursive) throws IOException {
    return guard().changes().delete(locate(path), recursive);
  }

  @Override
  public void setPermission(Path path, FsPermission permission) throws IOException {
    systemFor(locateForWrite(path)).setPermission(path, permission);
  }

  @Override
  public void setOwner(Path path, String user, String group) throws IOException {
    systemFor(locateForWrite(path)).setOwner(path, user, group);
  }

  @Override
  public void setTimes(Path path, long modified, long accessed) throws IOException {
    systemFor(locateForWrite(path)).setTimes(path, modified, accessed);
  }

  @Override
  public boolean setReplication(Path path, short replication) throws IOException {
    return systemFor(locateForWrite(path)).setReplication(path, replication);
  }

  // Spark's write jobs: see ZoneCommitProtocol

  /** The zones behind a file system; null where there are none. */
  static ZoneFileSystem of(FileSystem system) {
    return system instanceof ZoneLocalFileSystem local ? local.zones()
        : system instanceof ZoneFileSystem zones ? zones : null;
  }

  boolean deleteAtCommit(Path path, Path output) throws IOException {
    return guard().changes().deleteAtCommit(locate(path), locate(output));
  }

  void commitJob(Path output, String attempt, boolean dynamic, Runnable spark) throws IOException {
    new WriteJobs(guard().agent(), guard().changes()).commit(locate(output), attempt, dynamic, spark);
  }

  void abortJob(Path output, String attempt, Runnable spark) throws IOException {
    new WriteJobs(guard().agent(), guard().changes()).abort(locate(output), attempt, spark);
  }

  // Copies to and from local files go through the zones of the local file system as well

  private FileSystem local() throws IOException {
    return getScheme().equals("file") ? this : FileSystem.get(URI.create("file:///"), getConf());
  }

  @Override
  public void copyFromLocalFile(boolean move, boolean overwrite, Path source, Path target) throws IOException {
    FileUtil.copy(local(), source, this, target, move, overwrite, getConf());
  }

  @Override
  public void copyFromLocalFile(boolean move, boolean overwrite, Path[] sources, Path target) throws IOException {
    FileUtil.copy(local(), sources, this, target, move, overwrite, getConf());
  }

  @Override
  public void copyToLocalFile(boolean move, Path source, Path target, boolean raw) throws IOException {
    FileUtil.copy(this, source, local(), target, move, getConf());
  }

  @Override
  public Path startLocalOutput(Path target, Path temporary) {
    throw unsupported("writing by way of a plain local file", target);
  }

  @Override
  public void completeLocalOutput(Path target, Path temporary) {
    throw unsupported("writing by way of a plain local file", target);
  }

  /** None: parts would be encrypted apart from one another. So committers that upload parts of a file fail at once. */
  @Override
  public MultipartUploaderBuilder createMultipartUploader(Path base) {
    throw unsupported("uploading a file in parts", base);
  }

  // The rest

  @Override
  public StorageStatistics getStorageStatistics() {
    return storage.getStorageStatistics();
  }

  @Override
  public Path getEnclosingRoot(Path path) throws IOException {
    Place place = locate(path);
    if (!place.inZone()) {
      return super.getEnclosingRoot(path);
    }
    Path root = makeQualified(path);
    for (String at = place.location(); at.length() > place.zone().prefix().length(); at = Location.parent(at)) {
      root = root.getParent();
    }
    return root;
  }

  @Override
  public FsStatus getStatus(Path path) throws IOException {
    return storage.getStatus(path);
  }

  @Override
  public long getDefaultBlockSize(Path path) {
    return storage.getDefaultBlockSize(path);
  }

  @Override
  @Deprecated
  public long getDefaultBlockSize() {
    return storage.getDefaultBlockSize();
  }

  @Override
  public short getDefaultReplication(Path path) {
    return storage.getDefaultReplication(path);
  }

  @Override
  public void msync() throws IOException {
    storage.msync();
  }

  @Override
  public boolean hasPathCapability(Path path, String capability) throws IOException {
    switch (capability) {
      case CommonPathCapabilities.FS_PERMISSIONS:
      case CommonPathCapabilities.DIRECTORY_LISTING_INCONSISTENT:
      case CommonPathCapabilities.VIRTUAL_BLOCK_LOCATIONS:
        return storage.hasPathCapability(path, capability);
      default:
        return super.hasPathCapability(path, capability);
    }
  }

  @Override
  public String getCanonicalServiceName() {
    return storage.getCanonicalServiceName();
  }

  @Override
  public Token<?> getDelegationToken(String renewer) throws IOException {
    return storage.getDelegationToken(renewer);
  }

  /** Key servers and the like; never the storage itself, which is a file system without zones. */
  @Override
  public DelegationTokenIssuer[] getAdditionalTokenIssuers() throws IOException {
    DelegationTokenIssuer[] issuers = storage.getAdditionalTokenIssuers();
    return issuers == null ? null
        : Arrays.stream(issuers).filter(i -> !(i instanceof FileSystem)).toArray(DelegationTokenIssuer[]::new);
  }

  @Override
  public void close() throws IOException {
    try {
      super.close();
    } finally {
      storage.close();
    }
  }
}
