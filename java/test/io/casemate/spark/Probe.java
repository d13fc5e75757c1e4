package io.casemate.spark;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileContext;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Options;
import org.apache.hadoop.fs.Path;

/** Does one file operation for each line of JSON on stdin and answers with one: many tests share one start of Java. */
public final class Probe {
  private final FileSystem fs;
  private final FileContext context;

  private Probe(Configuration conf) throws Exception {
    fs = FileSystem.get(URI.create("file:///"), conf);
    context = FileContext.getFileContext(URI.create("file:///"), conf);
  }

  public static void main(String[] args) throws Exception {
    Probe probe = new Probe(TestFiles.configuration());
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      Map<String, Object> reply = new TreeMap<>();
      try {
        reply.put("result", probe.answer(Json.parseObject(line.getBytes(StandardCharsets.UTF_8))));
      } catch (Throwable e) {
        reply.put("error", String.valueOf(e.getMessage()));
        reply.put("type", e.getClass().getSimpleName());
      }
      out.println(new String(Json.canonical(reply), StandardCharsets.UTF_8));
    }
  }

  private Object answer(Map<String, Object> request) throws Exception {
    Path path = new Path("file://" + request.get("path"));
    switch ((String) request.get("op")) {
      case "read":
        return encode(TestFiles.read(fs.open(path)));
      case "read_ranges":
        return readRanges(path, (List<?>) request.get("ranges"));
      case "write":
        try (FSDataOutputStream out = fs.create(path, true)) {
          out.write(Base64.getDecoder().decode((String) request.get("data")));
        }
        return null;
      case "list":
        List<Object> entries = new ArrayList<>();
        for (FileStatus status : fs.listStatus(path)) {
          entries.add(List.of(status.getPath().getName(), status.isDirectory() ? -1L : status.getLen()));
        }
        entries.sort(java.util.Comparator.comparing(Object::toString));
        return entries;
      case "length":
        return fs.getFileStatus(path).getLen();
      case "exists":
        return fs.exists(path);
      case "mkdirs":
        return fs.mkdirs(path);
      case "delete":
        return fs.delete(path, true);
      case "delete_empty":
        return fs.delete(path, false);
      case "rename":
        return fs.rename(path, new Path("file://" + request.get("to")));
      case "context_write":
        try (FSDataOutputStream out = context.create(
            path, java.util.EnumSet.of(org.apache.hadoop.fs.CreateFlag.CREATE), Options.CreateOpts.createParent())) {
          out.write(Base64.getDecoder().decode((String) request.get("data")));
        }
        return null;
      case "context_rename":
        context.rename(path, new Path("file://" + request.get("to")), Options.Rename.OVERWRITE);
        return null;
      case "context_read":
        return encode(TestFiles.read(context.open(path)));
      case "manifest":
        Map<String, Manifest.Entry> files = new TreeMap<>();
        for (Map.Entry<?, ?> file : ((Map<?, ?>) request.get("files")).entrySet()) {
          List<?> entry = (List<?>) file.getValue();
          files.put((String) file.getKey(), new Manifest.Entry((Long) entry.get(0), (String) entry.get(1)));
        }
        DatasetKey key = new DatasetKey((String) request.get("dataset"), ((Long) request.get("version")).intValue(),
            Base64.getDecoder().decode((String) request.get("key")));
        return encode(Manifest.build(key, (String) request.get("location"), (Long) request.get("generation"), files));
      case "forget":
        Agent.get().forget();
        return null;
      default:
        throw new IllegalArgumentException("no operation " + request.get("op"));
    }
  }

  private List<Object> readRanges(Path path, List<?> ranges) throws Exception {
    List<Object> results = new ArrayList<>();
    try (FSDataInputStream in = fs.open(path)) {
      for (Object item : ranges) {
        List<?> range = (List<?>) item;
        byte[] bytes = new byte[((Long) range.get(1)).intValue()];
        in.readFully((Long) range.get(0), bytes);
        results.add(encode(bytes));
      }
    }
    return results;
  }

  private static String encode(byte[] bytes) {
    return Base64.getEncoder().encodeToString(bytes);
  }
}
