package io.casemate.spark;

import java.util.Locale;

/** How a program will read a file: what it said on opening it ({@code fs.option.openfile.read.policy}). */
enum ReadPolicy {
  /** As it turns out. */
  ADAPTIVE,
  /** From here to there, in order. */
  SEQUENTIAL,
  /** Here and there: nothing is read ahead. */
  RANDOM;

  /** The first that is known of a comma-separated list, as Hadoop has it. */
  static ReadPolicy parse(String policies) {
    for (String policy : policies.toLowerCase(Locale.ROOT).split(",")) {
      switch (policy.trim()) {
        case "sequential", "whole-file", "avro", "csv", "json":
          return SEQUENTIAL;
        case "random", "vector", "columnar", "parquet", "orc", "hbase":
          return RANDOM;
        case "adaptive", "default":
          return ADAPTIVE;
        default: // of a newer Hadoop
      }
    }
    return ADAPTIVE;
  }

  boolean readsAhead(boolean inOrderSoFar) {
    return this == SEQUENTIAL || this == ADAPTIVE && inOrderSoFar;
  }
}
