package io.casemate.spark;

import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.net.URI;
import java.nio.file.Files;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.AbstractFileSystem;
import org.apache.hadoop.fs.BlockLocation;
import org.apache.hadoop.fs.FileContext;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.LocalFileSystem;
import org.apache.hadoop.fs.Path;

/**
 * Walks every public method of Hadoop's file systems in a zone. Argument: a directory whose {@code rw} is a zone to
 * read and write, {@code ro} one to read, {@code private} TEE-private and {@code outside} none of these.
 */
public final class ApiWalk {
  private final java.nio.file.Path base;
  private final Configuration conf = TestFiles.configuration();
  private final byte[] content = TestFiles.content();
  private int cases;

  private ApiWalk(java.nio.file.Path base) {
    this.base = base;
  }

  public static void main(String[] args) throws Exception {
    ApiWalk walk = new ApiWalk(java.nio.file.Path.of(args[0]));
    walk.complete("FileSystem", FileSystem.class, ApiTable.fileSystem().keySet());
    walk.complete("AbstractFileSystem", AbstractFileSystem.class, AbstractApiTable.abstractFileSystem().keySet());
    Check.test("no public method of LocalFileSystem is left to Hadoop", ApiWalk::localOverrides);
    walk.walk("ZoneFileSystem", walk.bare());
    walk.walk("ZoneLocalFileSystem", FileSystem.get(URI.create("file:///"), walk.conf));
    walk.walkAbstract();
    walk.streams();
    walk.otherScheme();
    FileSystem.printStatistics();
    FileSystem.closeAll();
    Check.exit();
  }

  private FileSystem bare() throws Exception {
    ZoneFileSystem fs = new ZoneFileSystem();
    fs.initialize(URI.create("file:///"), conf);
    return fs;
  }

  private static String signature(Method method) {
    String types = Arrays.stream(method.getParameterTypes()).map(Class::getSimpleName).collect(Collectors.joining(","));
    return (Modifier.isStatic(method.getModifiers()) ? "static " : "") + method.getName() + "(" + types + ")";
  }

  private static Set<String> signatures(Class<?> type) {
    return Arrays.stream(type.getMethods()).filter(m -> m.getDeclaringClass() != Object.class && !m.isBridge())
        .map(ApiWalk::signature).collect(Collectors.toCollection(TreeSet::new));
  }

  /** A method that Hadoop adds, and nobody has thought about, fails here. */
  private void complete(String name, Class<?> type, Set<String> known) {
    Check.test("every public method of " + name + " is in the table", () -> {
      Set<String> unknown = signatures(type);
      unknown.removeAll(known);
      Check.same(Set.of(), unknown);
      Set<String> stale = new TreeSet<>(known);
      stale.removeAll(signatures(type));
      Check.same(Set.of(), stale);
    });
  }

  private static void localOverrides() {
    Set<String> harmless = Set.of( // names and numbers, no files
        "getScheme()", "getRaw()", "getRawFileSystem()", "getVerifyChecksum()", "setConf(Configuration)",
        "getBytesPerSum()", "getChecksumFile(Path)", "getChecksumFileLength(Path,long)");
    Set<String> left = new TreeSet<>();
    for (Class<?> type = LocalFileSystem.class; !type.getSimpleName().equals("FilterFileSystem");
        type = type.getSuperclass()) {
      for (Method method : type.getDeclaredMethods()) {
        if (!Modifier.isPublic(method.getModifiers()) || Modifier.isStatic(method.getModifiers()) || method.isBridge()
            || method.isSynthetic() || harmless.contains(signature(method))) {
          continue;
        }
        try {
          ZoneLocalFileSystem.class.getDeclaredMethod(method.getName(), method.getParameterTypes());
        } catch (NoSuchMethodException e) {
          left.add(signature(method));
        }
      }
    }
    Check.same(Set.of(), left);
  }

  private ApiTable.Fixture fixture(FileSystem fs, String area) throws Exception {
    String name = "walk" + cases++;
    java.nio.file.Path template = base.resolve("rw/template");
    if (Files.notExists(template)) {
      try (var out = fs.create(new Path("file://" + template))) {
        out.write(content);
      }
    }
    java.nio.file.Path root = base.resolve(area).resolve(name);
    java.nio.file.Path privateRoot = base.resolve("private").resolve(name);
    Files.createDirectories(root.resolve("dir"));
    Files.createDirectories(privateRoot);
    Files.copy(template, root.resolve("file"));
    Files.copy(template, root.resolve("dir/inner"));
    Files.write(privateRoot.resolve("local"), content);
    return new ApiTable.Fixture(
        fs, conf, content, new Path("file://" + root), new Path("file://" + privateRoot));
  }

  /** Nothing in the zones and outside is plaintext. */
  private void isSealed(ApiTable.Fixture f) throws Exception {
    TestFiles.tree(java.nio.file.Path.of(f.root.toUri().getPath())).forEach((path, bytes) -> {
      Check.that(!bytes.contains(TestFiles.MARKER), "plaintext in " + path);
      Check.that(path.endsWith("/") || bytes.startsWith("CSMT"), "not encrypted: " + path);
    });
  }

  private void walk(String name, FileSystem fs) {
    for (Map.Entry<String, ApiTable.Entry> entry : ApiTable.fileSystem().entrySet()) {
      ApiTable.Call call = entry.getValue().call();
      Check.test(name + "." + entry.getKey() + " " + entry.getValue().kind(), () -> {
        ApiTable.Fixture f = fixture(fs, "rw");
        if (entry.getValue().kind() == ApiTable.Kind.REFUSES) {
          Check.refused(() -> call.run(f));
          f.isUntouched();
        } else {
          call.run(f);
        }
        isSealed(f);
      });
      if (entry.getValue().kind() == ApiTable.Kind.WRITES) {
        for (String area : new String[] {"ro", "outside"}) {
          Check.test(name + "." + entry.getKey() + " is refused in " + area,
              () -> isRefused(fixture(fs, area), call::run));
        }
      }
    }
  }

  private interface OnFixture {
    void run(ApiTable.Fixture f) throws Throwable;
  }

  private static void isRefused(ApiTable.Fixture f, OnFixture call) throws Throwable {
    java.nio.file.Path root = java.nio.file.Path.of(f.root.toUri().getPath());
    Map<String, String> before = new HashMap<>(TestFiles.tree(root));
    Check.refused(() -> call.run(f));
    Check.that(before.equals(TestFiles.tree(root)), "the storage was changed");
  }

  private void walkAbstract() throws Exception {
    FileSystem helper = FileSystem.get(URI.create("file:///"), conf);
    AbstractFileSystem fs = AbstractFileSystem.get(URI.create("file:///"), conf);
    for (Map.Entry<String, AbstractApiTable.Entry> entry : AbstractApiTable.abstractFileSystem().entrySet()) {
      AbstractApiTable.Call call = entry.getValue().call();
      Check.test("ZoneAbstractFileSystem." + entry.getKey() + " " + entry.getValue().kind(), () -> {
        ApiTable.Fixture f = fixture(helper, "rw");
        if (entry.getValue().kind() == ApiTable.Kind.REFUSES) {
          Check.refused(() -> call.run(fs, f));
          f.isUntouched();
        } else {
          call.run(fs, f);
        }
        isSealed(f);
      });
      if (entry.getValue().kind() == ApiTable.Kind.WRITES) {
        for (String area : new String[] {"ro", "outside"}) {
          Check.test("ZoneAbstractFileSystem." + entry.getKey() + " is refused in " + area,
              () -> isRefused(fixture(helper, area), f -> call.run(fs, f)));
        }
      }
    }
  }

  private void streams() throws Exception {
    FileSystem fs = FileSystem.get(URI.create("file:///"), conf);
    ApiTable.Fixture f = fixture(fs, "rw");
    StreamTests.run(fs, f.file, content);
    StreamTests.readAhead(fs, new Path(f.root, "large"));
    StreamTests.writing(fs, f.fresh, java.nio.file.Path.of(f.fresh.toUri().getPath()), content);
  }

  private static String blocks(FileSystem fs, Path file, int[] range) throws Exception {
    StringBuilder text = new StringBuilder();
    for (BlockLocation block : fs.getFileBlockLocations(fs.getFileStatus(file), range[0], range[1])) {
      text.append(block.getOffset()).append('+').append(block.getLength()).append(Arrays.toString(block.getHosts()));
    }
    return text.toString();
  }

  /** Any storage that Hadoop knows: found by its setting, with zones of its own scheme and host. */
  private void otherScheme() {
    Configuration other = new Configuration(conf);
    other.set("fs.bucket.impl", ZoneFileSystem.class.getName());
    other.set("fs.AbstractFileSystem.bucket.impl", ZoneAbstractFileSystem.class.getName());
    other.set("casemate.fs.bucket.impl", BucketFileSystem.class.getName());
    String root = "bucket://data" + base.resolve("bucket");
    Path file = new Path(root, "zone/file");
    Check.test("zones work on another scheme", () -> {
      FileSystem fs = file.getFileSystem(other);
      try (var out = fs.create(file)) {
        out.write(content);
      }
      Check.same(content, TestFiles.read(fs.open(file)));
      Check.same((long) content.length, fs.listStatus(file.getParent())[0].getLen());
      Check.same(content, TestFiles.read(FileContext.getFileContext(file.toUri(), other).open(file)));
      byte[] bytes = Files.readAllBytes(base.resolve("bucket/zone/file"));
      Check.that(!TestFiles.holds(bytes, TestFiles.MARKER), "plaintext");
      Check.refused("outside-zones", () -> fs.create(new Path(root, "elsewhere")));
      Check.refused("outside-zones", () -> new Path("bucket://other" + base.resolve("bucket/zone/x"))
          .getFileSystem(other).create(new Path("bucket://other" + base.resolve("bucket/zone/x"))));
    });
    Check.test("an encrypted file has the blocks of a plain one with the same content, on the same hosts", () -> {
      BucketFileSystem plain = new BucketFileSystem();
      plain.initialize(URI.create("bucket://data"), conf);
      Path plainFile = new Path("bucket://data" + base.resolve("bucket/plain"));
      FileSystem fs = file.getFileSystem(other);
      for (int size : new int[] {0, 1, 49_999, 50_000, 50_001, 100_000, content.length}) {
        try (var out = plain.create(plainFile); var sealed = fs.create(file, true)) {
          out.write(content, 0, size);
          sealed.write(content, 0, size);
        }
        for (int[] range : new int[][] {{0, size}, {0, 1}, {49_999, 2}, {50_000, 1}, {60_000, 10}, {size, 10}}) {
          Check.same(blocks(plain, plainFile, range), blocks(fs, file, range));
        }
      }
    });
    Check.test("a scheme that nobody knows is refused", () -> {
      other.set("fs.nowhere.impl", ZoneFileSystem.class.getName());
      try {
        new Path("nowhere://x/y").getFileSystem(other);
        throw new AssertionError("opened");
      } catch (org.apache.hadoop.fs.UnsupportedFileSystemException e) {
        // as it should
      }
    });
  }
}
