package io.casemate.spark;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Objects;

/** What the attested job may do, as the agent tells it. Immutable for the life of the process. */
record Session(String job, boolean strict, boolean plaintextAllowed, List<String> privatePrefixes, List<Zone> zones) {
  /** @throws IOException if a member is missing or of an unknown value: nothing is assumed. */
  static Session parse(Map<String, Object> reply) throws IOException {
    try {
      List<Zone> zones = new ArrayList<>();
      for (Object item : (List<?>) reply.get("zones")) {
        Map<?, ?> zone = (Map<?, ?>) item;
        ColumnKeys columns = zone.get("parquet") == null ? null : ColumnKeys.parse((Map<?, ?>) zone.get("parquet"));
        zones.add(
            zone((String) zone.get("prefix"), (String) zone.get("dataset"), (String) zone.get("access"), columns, zones));
      }
      List<String> privatePrefixes = new ArrayList<>();
      for (Object prefix : (List<?>) reply.get("private_prefixes")) {
        privatePrefixes.add(Location.normalise((String) prefix));
      }
      boolean allowed = switch ((String) reply.get("plaintext_output")) {
        case "allow" -> true;
        case "deny" -> false;
        default -> throw new IOException("plaintext_output " + reply.get("plaintext_output"));
      };
      return new Session(Objects.requireNonNull((String) reply.get("job")), (Boolean) reply.get("strict"), allowed,
          List.copyOf(privatePrefixes), List.copyOf(zones));
    } catch (ClassCastException | NullPointerException | IllegalArgumentException e) {
      throw new IOException("the agent's session is not of the form it must have: " + e.getMessage(), e);
    }
  }

  /** The zone; a second one for the same prefix and dataset joins the first, for another dataset is refused. */
  private static Zone zone(String prefix, String dataset, String access, ColumnKeys columns, List<Zone> zones)
      throws IOException {
    String location = Location.normalise(prefix);
    boolean canRead = access.equals("read") || access.equals("read-write");
    boolean canWrite = access.equals("write") || access.equals("read-write");
    if (!canRead && !canWrite || !Preamble.DATASET.matcher(dataset).matches()) {
      throw new IOException("zone " + prefix + ": dataset " + dataset + ", access " + access);
    }
    for (Zone other : List.copyOf(zones)) {
      if (other.prefix().equals(location)) {
        if (!other.dataset().equals(dataset) || !Objects.equals(other.columns(), columns)) {
          throw new IOException("zone " + prefix + " is given to both " + other.dataset() + " and " + dataset);
        }
        zones.remove(other);
        canRead |= other.canRead();
        canWrite |= other.canWrite();
      }
    }
    return new Zone(location, dataset, canRead, canWrite, columns);
  }
}
