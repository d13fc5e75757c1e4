package io.casemate.spark;

import java.io.IOException;
import java.io.OutputStream;
import java.net.URI;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.BlockLocation;
import org.apache.hadoop.fs.BulkDelete;
import org.apache.hadoop.fs.CreateFlag;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.fs.StorageType;
import org.apache.hadoop.fs.permission.FsAction;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.security.Credentials;
import org.apache.hadoop.security.UserGroupInformation;

/** What every public method of {@code FileSystem} does in a zone: each is in here, and each is called for real. */
final class ApiTable {
  /** How a method may behave. */
  enum Kind {
    /** Gives what it would give on a plain file with the same content. */
    READS,
    /** Leaves the same, encrypted; refused in a zone that is only for reading, and outside the zones. */
    WRITES,
    /** Refused everywhere in a zone. */
    REFUSES,
    /** Touches no file's content. */
    NEUTRAL
  }

  /** A call with its check. */
  interface Call {
    void run(Fixture f) throws Throwable;
  }

  record Entry(Kind kind, Call call) {}

  /** Files that a call may use: {@code file} and {@code dir/inner} hold the content, {@code fresh} does not exist. */
  static final class Fixture {
    final FileSystem fs;
    final Configuration conf;
    final byte[] content;
    final Path root;
    final Path file;
    final Path dir;
    final Path inner;
    final Path fresh;
    final Path local; // a plain file in TEE-private memory with the same content
    final Path localFresh;

    Fixture(FileSystem fs, Configuration conf, byte[] content, Path root, Path privateRoot) {
      this.fs = fs;
      this.conf = conf;
      this.content = content;
      this.root = root;
      this.file = new Path(root, "file");
      this.dir = new Path(root, "dir");
      this.inner = new Path(dir, "inner");
      this.fresh = new Path(root, "fresh");
      this.local = new Path(privateRoot, "local");
      this.localFresh = new Path(privateRoot, "local-fresh");
    }

    void isContent(java.io.InputStream in) throws IOException {
      Check.same(content, TestFiles.read(in));
    }

    void fill(OutputStream out, Path path) throws IOException {
      try (out) {
        out.write(content);
      }
      isContent(fs.open(path));
      Check.same((long) content.length, fs.getFileStatus(path).getLen());
    }

    void isFile(FileStatus status) {
      Check.same((long) content.length, status.getLen());
      Check.that(status.isFile(), "a file");
    }

    /** {@code file} and {@code dir/inner} are as they were. */
    void isUntouched() throws IOException {
      isContent(fs.open(file));
      isContent(fs.open(inner));
    }
  }

  private final Map<String, Entry> entries = new LinkedHashMap<>();

  private void put(Kind kind, String signature, Call call) {
    Check.that(entries.put(signature, new Entry(kind, call)) == null, "twice: " + signature);
  }

  private void reads(String signature, Call call) {
    put(Kind.READS, signature, call);
  }

  private void writes(String signature, Call call) {
    put(Kind.WRITES, signature, call);
  }

  private void refuses(String signature, Call call) {
    put(Kind.REFUSES, signature, call);
  }

  private void neutral(String signature, Call call) {
    put(Kind.NEUTRAL, signature, call);
  }

  static Map<String, Entry> fileSystem() {
    ApiTable table = new ApiTable();
    table.reading();
    table.listing();
    table.creating();
    table.changing();
    table.copying();
    table.refusing();
    table.others();
    table.statics();
    return table.entries;
  }

  private void reading() {
    reads("open(Path)", f -> f.isContent(f.fs.open(f.file)));
    reads("open(Path,int)", f -> f.isContent(f.fs.open(f.file, 512)));
    reads("openFile(Path)", f -> f.isContent(f.fs.openFile(f.file).build().get()));
    reads("getFileStatus(Path)", f -> f.isFile(f.fs.getFileStatus(f.file)));
    reads("getFileLinkStatus(Path)", f -> f.isFile(f.fs.getFileLinkStatus(f.file)));
    reads("getLength(Path)", f -> Check.same((long) f.content.length, f.fs.getLength(f.file)));
    reads("exists(Path)", f -> Check.that(f.fs.exists(f.file) && !f.fs.exists(f.fresh), "exists"));
    reads("isDirectory(Path)", f -> Check.that(f.fs.isDirectory(f.dir) && !f.fs.isDirectory(f.file), "directory"));
    reads("isFile(Path)", f -> Check.that(f.fs.isFile(f.file) && !f.fs.isFile(f.dir), "file"));
    reads("getContentSummary(Path)", f ->
        Check.same(2L * f.content.length, f.fs.getContentSummary(f.root).getLength()));
    reads("getQuotaUsage(Path)", f -> Check.same(4L, f.fs.getQuotaUsage(f.root).getFileAndDirectoryCount()));
    reads("getUsed(Path)", f -> Check.same(2L * f.content.length, f.fs.getUsed(f.root)));
    reads("getFileBlockLocations(FileStatus,long,long)", f -> covers(
        f, f.fs.getFileBlockLocations(f.fs.getFileStatus(f.file), 0, f.content.length)));
    reads("getFileBlockLocations(Path,long,long)", f -> covers(
        f, f.fs.getFileBlockLocations(f.file, 0, f.content.length)));
    reads("getFileChecksum(Path)", f -> Check.same(null, f.fs.getFileChecksum(f.file)));
    reads("getFileChecksum(Path,long)", f -> Check.same(null, f.fs.getFileChecksum(f.file, 100)));
    reads("getBlockSize(Path)", f -> Check.that(f.fs.getBlockSize(f.file) > 0, "block size"));
    reads("getReplication(Path)", f -> Check.same((short) 1, f.fs.getReplication(f.file)));
    reads("resolvePath(Path)", f -> Check.same("file", f.fs.resolvePath(f.file).getName()));
    reads("access(Path,FsAction)", f -> f.fs.access(f.file, FsAction.READ));
  }

  private static void covers(Fixture f, BlockLocation[] blocks) {
    long end = 0;
    for (BlockLocation block : blocks) {
      Check.same(end, block.getOffset());
      end += block.getLength();
    }
    Check.same((long) f.content.length, end);
  }

  private static void listed(Fixture f, FileStatus... entries) {
    List<String> names = new ArrayList<>();
    for (FileStatus entry : entries) {
      names.add(entry.getPath().getName());
      Check.that(entry.isDirectory() || entry.getLen() == f.content.length, "length of " + entry);
    }
    names.sort(null);
    Check.same(List.of("dir", "file"), names);
  }

  private static <T extends FileStatus> FileStatus[] all(RemoteIterator<T> entries) throws IOException {
    List<FileStatus> found = new ArrayList<>();
    while (entries.hasNext()) {
      found.add(entries.next());
    }
    return found.toArray(new FileStatus[0]);
  }

  private void listing() {
    reads("listStatus(Path)", f -> listed(f, f.fs.listStatus(f.root)));
    reads("listStatus(Path,PathFilter)", f -> listed(f, f.fs.listStatus(f.root, path -> true)));
    reads("listStatus(Path[])", f -> listed(f, f.fs.listStatus(new Path[] {f.root})));
    reads("listStatus(Path[],PathFilter)", f -> listed(f, f.fs.listStatus(new Path[] {f.root}, path -> true)));
    reads("listStatusIterator(Path)", f -> listed(f, all(f.fs.listStatusIterator(f.root))));
    reads("listLocatedStatus(Path)", f -> listed(f, all(f.fs.listLocatedStatus(f.root))));
    reads("listFiles(Path,boolean)", f -> {
      FileStatus[] files = all(f.fs.listFiles(f.root, true));
      Check.same(2, files.length);
      Arrays.stream(files).forEach(f::isFile);
    });
    reads("globStatus(Path)", f -> listed(f, f.fs.globStatus(new Path(f.root, "*"))));
    reads("globStatus(Path,PathFilter)", f -> listed(f, f.fs.globStatus(new Path(f.root, "{dir,fi*}"), path -> true)));
  }

  private void creating() {
    EnumSet<CreateFlag> create = EnumSet.of(CreateFlag.CREATE);
    FsPermission mode = FsPermission.getFileDefault();
    writes("create(Path)", f -> f.fill(f.fs.create(f.fresh), f.fresh));
    writes("create(Path,boolean)", f -> f.fill(f.fs.create(f.file, true), f.file));
    writes("create(Path,Progressable)", f -> f.fill(f.fs.create(f.fresh, () -> { }), f.fresh));
    writes("create(Path,short)", f -> f.fill(f.fs.create(f.fresh, (short) 1), f.fresh));
    writes("create(Path,short,Progressable)", f -> f.fill(f.fs.create(f.fresh, (short) 1, () -> { }), f.fresh));
    writes("create(Path,boolean,int)", f -> f.fill(f.fs.create(f.fresh, true, 512), f.fresh));
    writes("create(Path,boolean,int,Progressable)", f -> f.fill(f.fs.create(f.fresh, true, 512, () -> { }), f.fresh));
    writes("create(Path,boolean,int,short,long)", f ->
        f.fill(f.fs.create(f.fresh, false, 512, (short) 1, 1 << 20), f.fresh));
    writes("create(Path,boolean,int,short,long,Progressable)", f ->
        f.fill(f.fs.create(f.fresh, false, 512, (short) 1, 1 << 20, null), f.fresh));
    writes("create(Path,FsPermission,boolean,int,short,long,Progressable)", f -> {
      f.fill(f.fs.create(f.fresh, new FsPermission("600"), true, 512, (short) 1, 1 << 20, null), f.fresh);
      Check.same(new FsPermission("600"), f.fs.getFileStatus(f.fresh).getPermission());
    });
    writes("create(Path,FsPermission,EnumSet,int,short,long,Progressable)", f ->
        f.fill(f.fs.create(f.fresh, mode, create, 512, (short) 1, 1 << 20, null), f.fresh));
    writes("create(Path,FsPermission,EnumSet,int,short,long,Progressable,ChecksumOpt)", f -> f.fill(
        f.fs.create(f.fresh, mode, create, 512, (short) 1, 1 << 20, null, new Options.ChecksumOpt()), f.fresh));
    writes("createNonRecursive(Path,FsPermission,EnumSet,int,short,long,Progressable)", f ->
        f.fill(f.fs.createNonRecursive(f.fresh, mode, create, 512, (short) 1, 1 << 20, null), f.fresh));
    writes("createNonRecursive(Path,FsPermission,boolean,int,short,long,Progressable)", f ->
        f.fill(f.fs.createNonRecursive(f.fresh, mode, false, 512, (short) 1, 1 << 20, null), f.fresh));
    writes("createNonRecursive(Path,boolean,int,short,long,Progressable)", f ->
        f.fill(f.fs.createNonRecursive(f.fresh, true, 512, (short) 1, 1 << 20, null), f.fresh));
    writes("createFile(Path)", f -> f.fill(f.fs.createFile(f.fresh).recursive().build(), f.fresh));
    writes("createNewFile(Path)", f -> {
      Check.that(f.fs.createNewFile(f.fresh), "made");
      Check.same(0, TestFiles.read(f.fs.open(f.fresh)).length);
    });
    writes("mkdirs(Path)", f -> Check.that(f.fs.mkdirs(f.fresh) && f.fs.isDirectory(f.fresh), "made"));
    writes("mkdirs(Path,FsPermission)", f -> Check.that(
        f.fs.mkdirs(f.fresh, new FsPermission("700")) && f.fs.isDirectory(f.fresh), "made"));
  }

  private void changing() {
    writes("rename(Path,Path)", f -> {
      Check.that(f.fs.rename(f.file, f.fresh), "renamed");
      f.isContent(f.fs.open(f.fresh));
    });
    writes("delete(Path)", f -> Check.that(f.fs.delete(f.file) && !f.fs.exists(f.file), "deleted"));
    writes("delete(Path,boolean)", f -> Check.that(f.fs.delete(f.dir, true) && !f.fs.exists(f.dir), "deleted"));
    writes("createBulkDelete(Path)", f -> {
      try (BulkDelete bulk = f.fs.createBulkDelete(f.root)) {
        List<Map.Entry<Path, String>> failed = bulk.bulkDelete(List.of(f.file));
        if (!failed.isEmpty()) {
          throw new RefusedException("zone-access-denied", "", failed.toString()); // told in the answer, not thrown
        }
      }
      Check.that(!f.fs.exists(f.file), "deleted");
    });
    writes("setPermission(Path,FsPermission)", f -> {
      f.fs.setPermission(f.file, new FsPermission("640"));
      Check.same(new FsPermission("640"), f.fs.getFileStatus(f.file).getPermission());
      f.isUntouched();
    });
    writes("setOwner(Path,String,String)", f -> {
      f.fs.setOwner(f.file, f.fs.getFileStatus(f.file).getOwner(), null);
      f.isUntouched();
    });
    writes("setTimes(Path,long,long)", f -> {
      f.fs.setTimes(f.file, 1_000_000_000_000L, -1);
      Check.same(1_000_000_000_000L, f.fs.getFileStatus(f.file).getModificationTime());
      f.isUntouched();
    });
    writes("setReplication(Path,short)", f -> {
      f.fs.setReplication(f.file, (short) 1);
      f.isUntouched();
    });
  }

  private void copying() {
    writes("copyFromLocalFile(Path,Path)", f -> {
      f.fs.copyFromLocalFile(f.local, f.fresh);
      f.isContent(f.fs.open(f.fresh));
    });
    writes("copyFromLocalFile(boolean,Path,Path)", f -> {
      f.fs.copyFromLocalFile(false, f.local, f.fresh);
      f.isContent(f.fs.open(f.fresh));
    });
    writes("copyFromLocalFile(boolean,boolean,Path,Path)", f -> {
      f.fs.copyFromLocalFile(false, true, f.local, f.fresh);
      f.isContent(f.fs.open(f.fresh));
    });
    writes("copyFromLocalFile(boolean,boolean,Path[],Path)", f -> {
      f.fs.copyFromLocalFile(false, true, new Path[] {f.local}, f.dir);
      f.isContent(f.fs.open(new Path(f.dir, "local")));
    });
    writes("moveFromLocalFile(Path,Path)", f -> {
      f.fs.moveFromLocalFile(f.local, f.fresh);
      f.isContent(f.fs.open(f.fresh));
      Check.that(!Files.exists(java.nio.file.Path.of(f.local.toUri().getPath())), "moved");
    });
    writes("moveFromLocalFile(Path[],Path)", f -> {
      f.fs.moveFromLocalFile(new Path[] {f.local}, f.dir);
      f.isContent(f.fs.open(new Path(f.dir, "local")));
    });
    reads("copyToLocalFile(Path,Path)", f -> {
      f.fs.copyToLocalFile(f.file, f.localFresh);
      f.isContent(f.fs.open(f.localFresh));
    });
    reads("copyToLocalFile(boolean,Path,Path)", f -> {
      f.fs.copyToLocalFile(false, f.file, f.localFresh);
      f.isContent(f.fs.open(f.localFresh));
    });
    reads("copyToLocalFile(boolean,Path,Path,boolean)", f -> {
      f.fs.copyToLocalFile(false, f.file, f.localFresh, true);
      f.isContent(f.fs.open(f.localFresh));
    });
    writes("moveToLocalFile(Path,Path)", f -> {
      f.fs.moveToLocalFile(f.file, f.localFresh);
      f.isContent(f.fs.open(f.localFresh));
      Check.that(!f.fs.exists(f.file), "moved");
    });
  }

  private void refusing() {
    refuses("append(Path)", f -> f.fs.append(f.file));
    refuses("append(Path,int)", f -> f.fs.append(f.file, 512));
    refuses("append(Path,int,Progressable)", f -> f.fs.append(f.file, 512, null));
    refuses("append(Path,boolean)", f -> f.fs.append(f.file, true));
    refuses("append(Path,int,Progressable,boolean)", f -> f.fs.append(f.file, 512, null, true));
    refuses("appendFile(Path)", f -> f.fs.appendFile(f.file).build());
    refuses("concat(Path,Path[])", f -> f.fs.concat(f.file, new Path[] {f.inner}));
    refuses("truncate(Path,long)", f -> f.fs.truncate(f.file, 10));
    refuses("startLocalOutput(Path,Path)", f -> f.fs.startLocalOutput(f.fresh, f.localFresh));
    refuses("completeLocalOutput(Path,Path)", f -> f.fs.completeLocalOutput(f.fresh, f.local));
    refuses("createMultipartUploader(Path)", f -> f.fs.createMultipartUploader(f.root));
    refuses("createSymlink(Path,Path,boolean)", f -> f.fs.createSymlink(f.file, f.fresh, false));
    refuses("getLinkTarget(Path)", f -> f.fs.getLinkTarget(f.file));
    refuses("getPathHandle(FileStatus,HandleOpt[])", f -> f.fs.getPathHandle(f.fs.getFileStatus(f.file)));
    refuses("open(PathHandle)", f -> f.fs.open((org.apache.hadoop.fs.PathHandle) () -> null));
    refuses("open(PathHandle,int)", f -> f.fs.open((org.apache.hadoop.fs.PathHandle) () -> null, 512));
    refuses("openFile(PathHandle)", f ->
        f.fs.openFile((org.apache.hadoop.fs.PathHandle) () -> null).build().get().read());
    refuses("setXAttr(Path,String,byte[])", f -> f.fs.setXAttr(f.file, "user.x", f.content));
    refuses("setXAttr(Path,String,byte[],EnumSet)", f ->
        f.fs.setXAttr(f.file, "user.x", f.content, EnumSet.allOf(org.apache.hadoop.fs.XAttrSetFlag.class)));
    refuses("getXAttr(Path,String)", f -> f.fs.getXAttr(f.file, "user.x"));
    refuses("getXAttrs(Path)", f -> f.fs.getXAttrs(f.file));
    refuses("getXAttrs(Path,List)", f -> f.fs.getXAttrs(f.file, List.of("user.x")));
    refuses("listXAttrs(Path)", f -> f.fs.listXAttrs(f.file));
    refuses("removeXAttr(Path,String)", f -> f.fs.removeXAttr(f.file, "user.x"));
    refuses("setAcl(Path,List)", f -> f.fs.setAcl(f.file, List.of()));
    refuses("modifyAclEntries(Path,List)", f -> f.fs.modifyAclEntries(f.file, List.of()));
    refuses("removeAclEntries(Path,List)", f -> f.fs.removeAclEntries(f.file, List.of()));
    refuses("removeAcl(Path)", f -> f.fs.removeAcl(f.file));
    refuses("removeDefaultAcl(Path)", f -> f.fs.removeDefaultAcl(f.file));
    refuses("getAclStatus(Path)", f -> f.fs.getAclStatus(f.file));
    refuses("createSnapshot(Path)", f -> f.fs.createSnapshot(f.root));
    refuses("createSnapshot(Path,String)", f -> f.fs.createSnapshot(f.root, "s"));
    refuses("renameSnapshot(Path,String,String)", f -> f.fs.renameSnapshot(f.root, "s", "t"));
    refuses("deleteSnapshot(Path,String)", f -> f.fs.deleteSnapshot(f.root, "s"));
    refuses("setStoragePolicy(Path,String)", f -> f.fs.setStoragePolicy(f.file, "HOT"));
    refuses("unsetStoragePolicy(Path)", f -> f.fs.unsetStoragePolicy(f.file));
    refuses("satisfyStoragePolicy(Path)", f -> f.fs.satisfyStoragePolicy(f.file));
    refuses("getStoragePolicy(Path)", f -> f.fs.getStoragePolicy(f.file));
    refuses("getAllStoragePolicies()", f -> f.fs.getAllStoragePolicies());
    refuses("setQuota(Path,long,long)", f -> f.fs.setQuota(f.root, 1, 1));
    refuses("setQuotaByStorageType(Path,StorageType,long)", f ->
        f.fs.setQuotaByStorageType(f.root, StorageType.DISK, 1));
    refuses("listCorruptFileBlocks(Path)", f -> f.fs.listCorruptFileBlocks(f.root));
    refuses("msync()", f -> f.fs.msync());
  }

  private void others() {
    neutral("addDelegationTokens(String,Credentials)", f -> f.fs.addDelegationTokens("me", new Credentials()));
    neutral("getAdditionalTokenIssuers()", f -> {
      Object[] issuers = f.fs.getAdditionalTokenIssuers();
      Check.that(issuers == null || Arrays.stream(issuers).noneMatch(i -> i instanceof FileSystem
          && !i.getClass().getPackageName().equals("io.casemate.spark")), "the storage itself is handed out");
    });
    neutral("getChildFileSystems()", f -> {
      FileSystem[] children = f.fs.getChildFileSystems();
      Check.that(children == null || children[0] instanceof ZoneFileSystem, "the storage itself is handed out");
    });
    neutral("getDelegationToken(String)", f -> f.fs.getDelegationToken("me"));
    neutral("getCanonicalServiceName()", f -> Check.same(null, f.fs.getCanonicalServiceName()));
    neutral("getName()", f -> Check.same("file:///", f.fs.getName()));
    neutral("getConf()", f -> Check.that(f.fs.getConf() != null, "configuration"));
    neutral("setConf(Configuration)", f -> f.fs.setConf(f.fs.getConf()));
    neutral("initialize(URI,Configuration)", f -> fresh(f).close());
    neutral("close()", f -> fresh(f).close());
    neutral("getScheme()", f -> Check.same("file", f.fs.getScheme()));
    neutral("getUri()", f -> Check.same(URI.create("file:///"), f.fs.getUri()));
    neutral("getUsed()", f -> Check.that(f.fs.getConf() != null, "walks the whole machine, by getUsed(Path)"));
    neutral("getDefaultBlockSize()", f -> Check.that(f.fs.getDefaultBlockSize() > 0, "size"));
    neutral("getDefaultBlockSize(Path)", f -> Check.that(f.fs.getDefaultBlockSize(f.file) > 0, "size"));
    neutral("getDefaultReplication()", f -> Check.same((short) 1, f.fs.getDefaultReplication()));
    neutral("getDefaultReplication(Path)", f -> Check.same((short) 1, f.fs.getDefaultReplication(f.file)));
    neutral("getServerDefaults()", f -> f.fs.getServerDefaults());
    neutral("getServerDefaults(Path)", f -> f.fs.getServerDefaults(f.file));
    neutral("getStatus()", f -> Check.that(f.fs.getStatus().getCapacity() > 0, "capacity"));
    neutral("getStatus(Path)", f -> Check.that(f.fs.getStatus(f.file).getCapacity() > 0, "capacity"));
    neutral("getStorageStatistics()", f -> f.fs.getStorageStatistics());
    neutral("getHomeDirectory()", f -> f.fs.getHomeDirectory());
    neutral("getWorkingDirectory()", f -> f.fs.getWorkingDirectory());
    neutral("setWorkingDirectory(Path)", f -> {
      FileSystem fs = fresh(f);
      fs.setWorkingDirectory(f.dir);
      f.isContent(fs.open(new Path("inner")));
      Check.refused(() -> fs.open(new Path("../../../ro/../ro/_casemate/x")));
    });
    neutral("makeQualified(Path)", f -> Check.same("file", f.fs.makeQualified(f.file).toUri().getScheme()));
    neutral("getEnclosingRoot(Path)", f -> Check.that(
        f.file.toUri().getPath().startsWith(f.fs.getEnclosingRoot(f.file).toUri().getPath() + "/"), "root"));
    neutral("getTrashRoot(Path)", f -> f.fs.getTrashRoot(f.file));
    neutral("getTrashRoots(boolean)", f -> f.fs.getTrashRoots(false));
    neutral("hasPathCapability(Path,String)", f -> {
      for (String capability : List.of("append", "concat", "truncate", "xattrs", "acls", "snapshots", "checksums",
          "symlinks", "multipart.uploader", "pathhandles", "storagepolicy")) {
        Check.that(!f.fs.hasPathCapability(f.file, "fs.capability.paths." + capability), capability);
      }
    });
    neutral("deleteOnExit(Path)", f -> {
      FileSystem fs = fresh(f);
      Check.that(fs.deleteOnExit(f.file), "noted");
      fs.close();
      Check.that(!f.fs.exists(f.file), "deleted");
    });
    neutral("cancelDeleteOnExit(Path)", f -> Check.that(!f.fs.cancelDeleteOnExit(f.file), "nothing to cancel"));
    neutral("supportsSymlinks()", f -> Check.that(!f.fs.supportsSymlinks(), "links"));
    neutral("setVerifyChecksum(boolean)", f -> {
      f.fs.setVerifyChecksum(false);
      f.isUntouched();
    });
    neutral("setWriteChecksum(boolean)", f -> {
      f.fs.setWriteChecksum(true);
      f.fill(f.fs.create(f.fresh), f.fresh);
      Check.that(!f.fs.exists(new Path(f.root, ".fresh.crc")), "a checksum of the plaintext");
    });
  }

  private static FileSystem fresh(Fixture f) throws IOException {
    return FileSystem.newInstance(URI.create("file:///"), f.conf);
  }

  private static void isOurs(FileSystem fs) {
    Check.same(ZoneLocalFileSystem.class, fs.getClass());
  }

  private void statics() {
    URI uri = URI.create("file:///");
    neutral("static get(Configuration)", f -> isOurs(FileSystem.get(f.conf)));
    neutral("static get(URI,Configuration)", f -> isOurs(FileSystem.get(uri, f.conf)));
    neutral("static get(URI,Configuration,String)", f -> isOurs(FileSystem.get(uri, f.conf, "other")));
    neutral("static getLocal(Configuration)", f -> {
      isOurs(FileSystem.getLocal(f.conf));
      Check.same(ZoneFileSystem.class, FileSystem.getLocal(f.conf).getRawFileSystem().getClass());
      f.isContent(FileSystem.getLocal(f.conf).getRaw().open(f.file));
    });
    neutral("static getNamed(String,Configuration)", f -> isOurs(FileSystem.getNamed("file:///", f.conf)));
    neutral("static newInstance(Configuration)", f -> isOurs(FileSystem.newInstance(f.conf)));
    neutral("static newInstance(URI,Configuration)", f -> isOurs(FileSystem.newInstance(uri, f.conf)));
    neutral("static newInstance(URI,Configuration,String)", f -> isOurs(FileSystem.newInstance(uri, f.conf, "other")));
    neutral("static newInstanceLocal(Configuration)", f -> isOurs(FileSystem.newInstanceLocal(f.conf)));
    neutral("static getFileSystemClass(String,Configuration)", f ->
        Check.same(ZoneLocalFileSystem.class, FileSystem.getFileSystemClass("file", f.conf)));
    writes("static create(FileSystem,Path,FsPermission)", f -> {
      FSDataOutputStream out = FileSystem.create(f.fs, f.fresh, new FsPermission("600"));
      f.fill(out, f.fresh);
    });
    writes("static mkdirs(FileSystem,Path,FsPermission)", f ->
        Check.that(FileSystem.mkdirs(f.fs, f.fresh, new FsPermission("700")), "made"));
    neutral("static areSymlinksEnabled()", f -> FileSystem.areSymlinksEnabled());
    neutral("static enableSymlinks()", f -> {
      FileSystem.enableSymlinks();
      Check.refused(() -> f.fs.createSymlink(f.file, f.fresh, false));
    });
    neutral("static getDefaultUri(Configuration)", f -> FileSystem.getDefaultUri(f.conf));
    neutral("static setDefaultUri(Configuration,String)", f ->
        FileSystem.setDefaultUri(new Configuration(false), "file:///"));
    neutral("static setDefaultUri(Configuration,URI)", f -> FileSystem.setDefaultUri(new Configuration(false), uri));
    neutral("static getStatistics()", f -> FileSystem.getStatistics());
    neutral("static getStatistics(String,Class)", f -> FileSystem.getStatistics("file", ZoneFileSystem.class));
    neutral("static getAllStatistics()", f -> FileSystem.getAllStatistics());
    neutral("static getGlobalStorageStatistics()", f -> FileSystem.getGlobalStorageStatistics());
    neutral("static clearStatistics()", f -> FileSystem.clearStatistics());
    neutral("static printStatistics()", f -> Check.that(FileSystem.getAllStatistics() != null, "prints numbers"));
    neutral("static closeAllForUGI(UserGroupInformation)", f ->
        FileSystem.closeAllForUGI(UserGroupInformation.createRemoteUser("other")));
    neutral("static closeAll()", f -> Check.that(FileSystem.get(f.conf) != null, "called at the very end"));
  }
}
