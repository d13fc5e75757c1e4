package io.casemate.spark;

import java.io.IOException;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.apache.parquet.schema.MessageType;

/**
 * Which columns of a zone's Parquet files are encrypted under another dataset's key than the zone's own.
 *
 * @param datasets the dataset of each named column or group, by its path in lower case ({@code history.code})
 * @param plaintextFooter whether footers are only signed
 * @param algorithm Parquet's name for the cipher
 */
record ColumnKeys(Map<String, String> datasets, boolean plaintextFooter, String algorithm) {
  /** @throws IOException if a member is missing or of an unknown value */
  static ColumnKeys parse(Map<?, ?> layout) throws IOException {
    Map<String, String> datasets = new TreeMap<>();
    for (Map.Entry<?, ?> entry : ((Map<?, ?>) layout.get("columns")).entrySet()) {
      String dataset = (String) entry.getKey();
      for (Object column : (List<?>) entry.getValue()) {
        String name = ((String) column).toLowerCase(Locale.ROOT);
        if (!Preamble.DATASET.matcher(dataset).matches() || datasets.put(name, dataset) != null) {
          throw new IOException("parquet columns: " + dataset + ": " + column);
        }
      }
    }
    String algorithm = (String) layout.get("algorithm");
    if (datasets.isEmpty() || !algorithm.equals("AES_GCM_V1") && !algorithm.equals("AES_GCM_CTR_V1")) {
      throw new IOException("parquet: " + datasets.size() + " columns, algorithm " + algorithm);
    }
    return new ColumnKeys(Map.copyOf(datasets), (Boolean) layout.get("plaintext_footer"), algorithm);
  }

  /**
   * The columns of {@code schema} under each dataset, as {@code parquet.encryption.column.keys} lists them.
   *
   * @throws RefusedException {@code column-missing} if a named column is not there: it may be there under another name,
   *     and would be written under the wrong key
   */
  String keysOf(MessageType schema, String file) throws RefusedException {
    Map<String, StringBuilder> columns = new TreeMap<>();
    Set<String> missing = new HashSet<>(datasets.keySet());
    for (String[] leaf : schema.getPaths()) {
      String path = String.join(".", leaf);
      String named = named(path.toLowerCase(Locale.ROOT));
      if (named == null) {
        continue;
      }
      for (String part : leaf) {
        if (part.matches(".*[.,:;].*") || !part.strip().equals(part)) {
          throw new RefusedException("column-missing", file, "Parquet cannot name a key for column " + path);
        }
      }
      missing.remove(named);
      StringBuilder list = columns.computeIfAbsent(datasets.get(named), dataset -> new StringBuilder());
      list.append(list.isEmpty() ? "" : ",").append(path);
    }
    if (!missing.isEmpty()) {
      throw new RefusedException("column-missing", file, "the zone has a key for column " + missing.iterator().next()
          + ", and the file has no such column; write it to a zone of its own");
    }
    StringBuilder keys = new StringBuilder();
    columns.forEach((dataset, list) -> keys.append(dataset).append(':').append(list).append(';'));
    return keys.toString();
  }

  /** The longest named path that is {@code path} or an ancestor of it; null for none. */
  private String named(String path) {
    for (String at = path; ; at = at.substring(0, at.lastIndexOf('.'))) {
      if (datasets.containsKey(at)) {
        return at;
      }
      if (at.lastIndexOf('.') < 0) {
        return null;
      }
    }
  }

  /** The named columns of a dataset, for a message; empty when it has none. */
  String columnsOf(String dataset) {
    StringBuilder found = new StringBuilder();
    new TreeMap<>(datasets).forEach((column, owner) -> {
      if (owner.equals(dataset)) {
        found.append(found.isEmpty() ? "" : ", ").append(column);
      }
    });
    return found.toString();
  }
}
