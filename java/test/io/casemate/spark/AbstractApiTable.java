package io.casemate.spark;

import java.io.IOException;
import java.net.URI;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.hadoop.fs.AbstractFileSystem;
import org.apache.hadoop.fs.CreateFlag;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.fs.permission.FsAction;
import org.apache.hadoop.fs.permission.FsPermission;

/** As {@link ApiTable}, for what {@code FileContext} calls. */
final class AbstractApiTable {
  /** A call with its check. */
  interface Call {
    void run(AbstractFileSystem fs, ApiTable.Fixture f) throws Throwable;
  }

  record Entry(ApiTable.Kind kind, Call call) {}

  private final Map<String, Entry> entries = new LinkedHashMap<>();

  private void put(ApiTable.Kind kind, String signature, Call call) {
    Check.that(entries.put(signature, new Entry(kind, call)) == null, "twice: " + signature);
  }

  static Map<String, Entry> abstractFileSystem() {
    AbstractApiTable table = new AbstractApiTable();
    table.reads();
    table.writes();
    table.refuses();
    table.neutral();
    return table.entries;
  }

  private static int count(RemoteIterator<?> iterator) throws IOException {
    int count = 0;
    while (iterator.hasNext()) {
      iterator.next();
      count++;
    }
    return count;
  }

  private void reads() {
    ApiTable.Kind kind = ApiTable.Kind.READS;
    put(kind, "open(Path)", (fs, f) -> f.isContent(fs.open(f.file)));
    put(kind, "open(Path,int)", (fs, f) -> f.isContent(fs.open(f.file, 512)));
    put(kind, "openFileWithOptions(Path,OpenFileParameters)", (fs, f) -> f.isContent(fs.openFileWithOptions(
        f.file, new org.apache.hadoop.fs.impl.OpenFileParameters().withBufferSize(512)
            .withMandatoryKeys(java.util.Set.of()).withOptionalKeys(java.util.Set.of()).withOptions(f.conf)).get()));
    put(kind, "getFileStatus(Path)", (fs, f) -> f.isFile(fs.getFileStatus(f.file)));
    put(kind, "getFileLinkStatus(Path)", (fs, f) -> f.isFile(fs.getFileLinkStatus(f.file)));
    put(kind, "getFileChecksum(Path)", (fs, f) -> Check.same(null, fs.getFileChecksum(f.file)));
    put(kind, "getFileBlockLocations(Path,long,long)", (fs, f) -> Check.same(
        (long) f.content.length, fs.getFileBlockLocations(f.file, 0, f.content.length)[0].getLength()));
    put(kind, "listStatus(Path)", (fs, f) -> Check.same(2, fs.listStatus(f.root).length));
    put(kind, "listStatusIterator(Path)", (fs, f) -> Check.same(2, count(fs.listStatusIterator(f.root))));
    put(kind, "listLocatedStatus(Path)", (fs, f) -> f.isFile(fs.listLocatedStatus(f.dir).next()));
    put(kind, "access(Path,FsAction)", (fs, f) -> fs.access(f.file, FsAction.READ));
    put(kind, "resolvePath(Path)", (fs, f) -> Check.same("file", fs.resolvePath(f.file).getName()));
  }

  private void writes() {
    ApiTable.Kind kind = ApiTable.Kind.WRITES;
    FsPermission mode = FsPermission.getFileDefault();
    EnumSet<CreateFlag> flags = EnumSet.of(CreateFlag.CREATE, CreateFlag.OVERWRITE);
    put(kind, "create(Path,EnumSet,CreateOpts[])", (fs, f) -> f.fill(
        fs.create(f.fresh, flags, Options.CreateOpts.perms(mode)), f.fresh));
    put(kind, "createInternal(Path,EnumSet,FsPermission,int,short,long,Progressable,ChecksumOpt,boolean)", (fs, f) ->
        f.fill(fs.createInternal(
            f.fresh, flags, mode, 512, (short) 1, 1 << 20, null, new Options.ChecksumOpt(), true), f.fresh));
    put(kind, "mkdir(Path,FsPermission,boolean)", (fs, f) -> {
      fs.mkdir(f.fresh, mode, true);
      Check.that(f.fs.isDirectory(f.fresh), "made");
    });
    put(kind, "delete(Path,boolean)", (fs, f) -> Check.that(fs.delete(f.file, false), "deleted"));
    put(kind, "rename(Path,Path,Rename[])", (fs, f) -> {
      fs.rename(f.file, f.inner, Options.Rename.OVERWRITE);
      f.isContent(fs.open(f.inner));
    });
    put(kind, "renameInternal(Path,Path)", (fs, f) -> {
      fs.renameInternal(f.file, f.fresh);
      f.isContent(fs.open(f.fresh));
    });
    put(kind, "renameInternal(Path,Path,boolean)", (fs, f) -> {
      fs.renameInternal(f.file, f.inner, true);
      f.isContent(fs.open(f.inner));
    });
    put(kind, "setPermission(Path,FsPermission)", (fs, f) -> fs.setPermission(f.file, mode));
    put(kind, "setOwner(Path,String,String)", (fs, f) ->
        fs.setOwner(f.file, f.fs.getFileStatus(f.file).getOwner(), null));
    put(kind, "setTimes(Path,long,long)", (fs, f) -> fs.setTimes(f.file, 1_000_000_000_000L, -1));
    put(kind, "setReplication(Path,short)", (fs, f) -> fs.setReplication(f.file, (short) 1));
  }

  private void refuses() {
    ApiTable.Kind kind = ApiTable.Kind.REFUSES;
    put(kind, "truncate(Path,long)", (fs, f) -> fs.truncate(f.file, 10));
    put(kind, "createSymlink(Path,Path,boolean)", (fs, f) -> fs.createSymlink(f.file, f.fresh, false));
    put(kind, "getLinkTarget(Path)", (fs, f) -> fs.getLinkTarget(f.file));
    put(kind, "createMultipartUploader(Path)", (fs, f) -> fs.createMultipartUploader(f.root));
    put(kind, "createSnapshot(Path,String)", (fs, f) -> fs.createSnapshot(f.root, "s"));
    put(kind, "renameSnapshot(Path,String,String)", (fs, f) -> fs.renameSnapshot(f.root, "s", "t"));
    put(kind, "deleteSnapshot(Path,String)", (fs, f) -> fs.deleteSnapshot(f.root, "s"));
    put(kind, "setXAttr(Path,String,byte[])", (fs, f) -> fs.setXAttr(f.file, "user.x", f.content));
    put(kind, "setXAttr(Path,String,byte[],EnumSet)", (fs, f) ->
        fs.setXAttr(f.file, "user.x", f.content, EnumSet.allOf(org.apache.hadoop.fs.XAttrSetFlag.class)));
    put(kind, "getXAttr(Path,String)", (fs, f) -> fs.getXAttr(f.file, "user.x"));
    put(kind, "getXAttrs(Path)", (fs, f) -> fs.getXAttrs(f.file));
    put(kind, "getXAttrs(Path,List)", (fs, f) -> fs.getXAttrs(f.file, List.of("user.x")));
    put(kind, "listXAttrs(Path)", (fs, f) -> fs.listXAttrs(f.file));
    put(kind, "removeXAttr(Path,String)", (fs, f) -> fs.removeXAttr(f.file, "user.x"));
    put(kind, "setAcl(Path,List)", (fs, f) -> fs.setAcl(f.file, List.of()));
    put(kind, "modifyAclEntries(Path,List)", (fs, f) -> fs.modifyAclEntries(f.file, List.of()));
    put(kind, "removeAclEntries(Path,List)", (fs, f) -> fs.removeAclEntries(f.file, List.of()));
    put(kind, "removeAcl(Path)", (fs, f) -> fs.removeAcl(f.file));
    put(kind, "removeDefaultAcl(Path)", (fs, f) -> fs.removeDefaultAcl(f.file));
    put(kind, "getAclStatus(Path)", (fs, f) -> fs.getAclStatus(f.file));
    put(kind, "setStoragePolicy(Path,String)", (fs, f) -> fs.setStoragePolicy(f.file, "HOT"));
    put(kind, "unsetStoragePolicy(Path)", (fs, f) -> fs.unsetStoragePolicy(f.file));
    put(kind, "satisfyStoragePolicy(Path)", (fs, f) -> fs.satisfyStoragePolicy(f.file));
    put(kind, "getStoragePolicy(Path)", (fs, f) -> fs.getStoragePolicy(f.file));
    put(kind, "getAllStoragePolicies()", (fs, f) -> fs.getAllStoragePolicies());
    put(kind, "listCorruptFileBlocks(Path)", (fs, f) -> fs.listCorruptFileBlocks(f.root));
    put(kind, "msync()", (fs, f) -> fs.msync());
  }

  private void neutral() {
    ApiTable.Kind kind = ApiTable.Kind.NEUTRAL;
    URI uri = URI.create("file:///");
    put(kind, "checkPath(Path)", (fs, f) -> fs.checkPath(f.file));
    put(kind, "checkScheme(URI,String)", (fs, f) -> fs.checkScheme(uri, "file"));
    put(kind, "equals(Object)", (fs, f) -> Check.that(fs.equals(fs), "itself"));
    put(kind, "hashCode()", (fs, f) -> fs.hashCode());
    put(kind, "getCanonicalServiceName()", (fs, f) -> Check.same(null, fs.getCanonicalServiceName()));
    put(kind, "getDelegationTokens(String)", (fs, f) -> fs.getDelegationTokens("me"));
    put(kind, "getEnclosingRoot(Path)", (fs, f) -> fs.getEnclosingRoot(f.file));
    put(kind, "getFsStatus()", (fs, f) -> fs.getFsStatus());
    put(kind, "getFsStatus(Path)", (fs, f) -> fs.getFsStatus(f.file));
    put(kind, "getHomeDirectory()", (fs, f) -> fs.getHomeDirectory());
    put(kind, "getInitialWorkingDirectory()", (fs, f) -> fs.getInitialWorkingDirectory());
    put(kind, "getServerDefaults()", (fs, f) -> fs.getServerDefaults());
    put(kind, "getServerDefaults(Path)", (fs, f) -> fs.getServerDefaults(f.file));
    put(kind, "getStatistics()", (fs, f) -> fs.getStatistics());
    put(kind, "getUri()", (fs, f) -> Check.same(uri, fs.getUri()));
    put(kind, "getUriDefaultPort()", (fs, f) -> Check.same(-1, fs.getUriDefaultPort()));
    put(kind, "getUriPath(Path)", (fs, f) -> fs.getUriPath(f.file));
    put(kind, "hasPathCapability(Path,String)", (fs, f) ->
        Check.that(!fs.hasPathCapability(f.file, "fs.capability.paths.append"), "append"));
    put(kind, "isValidName(String)", (fs, f) ->
        Check.that(fs.isValidName("/a:b") && !fs.isValidName("/a/../b"), "names"));
    put(kind, "makeQualified(Path)", (fs, f) -> fs.makeQualified(f.file));
    put(kind, "setVerifyChecksum(boolean)", (fs, f) -> fs.setVerifyChecksum(false));
    put(kind, "supportsSymlinks()", (fs, f) -> Check.that(!fs.supportsSymlinks(), "links"));
    put(kind, "static clearStatistics()", (fs, f) -> AbstractFileSystem.clearStatistics());
    put(kind, "static printStatistics()", (fs, f) -> Check.that(fs.getStatistics() != null, "prints numbers"));
    put(kind, "static get(URI,Configuration)", (fs, f) ->
        Check.same(ZoneAbstractFileSystem.class, AbstractFileSystem.get(uri, f.conf).getClass()));
    put(kind, "static createFileSystem(URI,Configuration)", (fs, f) ->
        Check.same(ZoneAbstractFileSystem.class, AbstractFileSystem.createFileSystem(uri, f.conf).getClass()));
  }
}
