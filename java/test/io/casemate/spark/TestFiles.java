package io.casemate.spark;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.TreeMap;
import org.apache.hadoop.conf.Configuration;

/** Configuration, contents and a view of the raw storage for the tests. */
final class TestFiles {
  static final String MARKER = "PLAINTEXT-MARKER-";

  private TestFiles() {}

  static Configuration configuration() {
    Configuration conf = new Configuration();
    conf.set("fs.file.impl", ZoneLocalFileSystem.class.getName());
    conf.set("fs.AbstractFileSystem.file.impl", ZoneAbstractFileSystem.class.getName());
    return conf;
  }

  /** Three segments and a bit of text that would be seen anywhere. */
  static byte[] content() {
    StringBuilder text = new StringBuilder();
    for (int i = 0; text.length() < 140_000; i++) {
      text.append(MARKER).append(i).append('\n');
    }
    return text.toString().getBytes(StandardCharsets.US_ASCII);
  }

  static byte[] read(InputStream in) throws IOException {
    try (in) {
      return in.readAllBytes();
    }
  }

  /** Whether {@code bytes} hold the text. */
  static boolean holds(byte[] bytes, String text) {
    return new String(bytes, StandardCharsets.ISO_8859_1).contains(text);
  }

  /** Every file's bytes below a directory of the real storage, as text, by relative path. */
  static TreeMap<String, String> tree(Path root) throws IOException {
    TreeMap<String, String> found = new TreeMap<>();
    Files.walkFileTree(root, new SimpleFileVisitor<>() {
      @Override
      public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) throws IOException {
        found.put(root.relativize(file).toString(), attributes.isRegularFile()
            ? new String(Files.readAllBytes(file), StandardCharsets.ISO_8859_1) : "link");
        return FileVisitResult.CONTINUE;
      }

      @Override
      public FileVisitResult preVisitDirectory(Path directory, BasicFileAttributes attributes) {
        found.put(root.relativize(directory) + "/", "");
        return FileVisitResult.CONTINUE;
      }
    });
    return found;
  }
}
