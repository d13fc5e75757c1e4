package io.casemate.spark;

import java.io.IOException;

/** What {@link ZoneCommitProtocol} asks of a file system with zones, around Spark's own commit or abort of a job. */
final class WriteJobs {
  private final Agent agent;
  private final ZoneChanges zones;

  WriteJobs(Agent agent, ZoneChanges zones) {
    this.agent = agent;
    this.zones = zones;
  }

  /** Spark's part, and the commit of the manifest unless that part has brought it. */
  void commit(Place output, String attempt, boolean dynamic, Runnable spark) throws IOException {
    Changes changes = agent.changes();
    long before = changes.commits(output.location());
    if (dynamic) {
      changes.overwritten().set(output.location());
    }
    run(attempt, spark);
    if (output.inZone() && changes.commits(output.location()) == before) {
      zones.commit(output);
    }
  }

  /** Spark's part; what the job wanted to replace stays. */
  void abort(Place output, String attempt, Runnable spark) throws IOException {
    agent.changes().spare(output.location());
    run(attempt, spark);
  }

  private void run(String attempt, Runnable spark) {
    agent.changes().attempt().set(attempt);
    try {
      spark.run();
    } finally {
      agent.changes().attempt().remove();
      agent.changes().overwritten().remove();
    }
  }
}
