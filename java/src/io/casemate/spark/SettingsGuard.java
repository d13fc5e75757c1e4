package io.casemate.spark;

import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Properties;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkContext;
import org.apache.spark.api.plugin.DriverPlugin;
import org.apache.spark.api.plugin.ExecutorPlugin;
import org.apache.spark.api.plugin.PluginContext;
import org.apache.spark.api.plugin.SparkPlugin;

/**
 * Stops a Spark context whose settings do not protect ({@code spark.plugins}). A program may set things in its own code, over
 * the files that {@code casemate run} wrote: this says so, instead of running with less protection than was agreed.
 */
public final class SettingsGuard implements SparkPlugin {
  private static final String FILE_PROPERTY = "casemate.protected-settings";

  @Override
  public DriverPlugin driverPlugin() {
    return new Driver();
  }

  @Override
  public ExecutorPlugin executorPlugin() {
    return null; // executors have the driver's settings, and their own certificate
  }

  private static final class Driver implements DriverPlugin {
    @Override
    public Map<String, String> init(SparkContext context, PluginContext plugin) {
      try {
        check(context.getConf(), load(Path.of(System.getProperty(FILE_PROPERTY, ""))));
        return Map.of();
      } catch (IOException e) {
        throw new IllegalStateException(e.getMessage(), e);
      }
    }
  }

  private static Properties load(Path path) throws IOException {
    Properties settings = new Properties();
    try (Reader in = Files.newBufferedReader(path)) {
      settings.load(in);
    }
    return settings;
  }

  private static void check(SparkConf conf, Properties settings) throws IOException {
    for (String name : settings.stringPropertyNames()) {
      if (!settings.getProperty(name).equals(conf.get(name, null))) {
        refuse(name, "the program sets it to " + conf.get(name, "nothing") + ", but it decides how data is protected");
      }
    }
    String log = conf.get("spark.eventLog.dir", "file:/tmp/spark-events");
    if (conf.getBoolean("spark.eventLog.enabled", false) && (log.startsWith("/") || log.startsWith("file:"))) {
      refuse("spark.eventLog.dir", "Spark writes event logs on local paths past every file system, in the clear: " + log);
    }
  }

  private static void refuse(String name, String detail) throws IOException {
    throw Agent.get().report(new RefusedException("protected-setting", name, detail));
  }
}
