package io.casemate.spark;

import java.io.IOException;
import java.io.UncheckedIOException;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.mapreduce.JobContext;
import org.apache.hadoop.mapreduce.TaskAttemptContext;
import org.apache.spark.internal.io.FileCommitProtocol.TaskCommitMessage;
import org.apache.spark.sql.execution.datasources.SQLHadoopMapReduceCommitProtocol;
import scala.collection.immutable.Seq;

/**
 * Spark's own way to commit what a query writes ({@code spark.sql.sources.commitProtocolClass}), with three differences
 * in zones. What an overwriting job replaces is deleted with its commit and not before its first task, so that readers
 * see the old dataset or the new one. Each job has its own directory below {@code _temporary}, so that jobs that append
 * at once do not touch each other's files. And the dataset's manifest is committed also without a {@code _SUCCESS} file.
 */
public class ZoneCommitProtocol extends SQLHadoopMapReduceCommitProtocol {
  private static final long serialVersionUID = 1;
  private static final String ATTEMPT = "mapreduce.job.application.attempt.id";

  private final String output;
  private final boolean dynamic;
  private final int attempt;

  /** Spark calls this by reflection. */
  public ZoneCommitProtocol(String jobId, String path, boolean dynamicPartitionOverwrite) {
    super(jobId, path, dynamicPartitionOverwrite);
    this.output = path;
    this.dynamic = dynamicPartitionOverwrite;
    this.attempt = jobId.hashCode() & Integer.MAX_VALUE;
  }

  @Override
  public void setupJob(JobContext job) {
    job.getConfiguration().setInt(ATTEMPT, attempt);
    super.setupJob(job);
  }

  @Override
  public void setupTask(TaskAttemptContext task) {
    task.getConfiguration().setInt(ATTEMPT, attempt);
    super.setupTask(task);
  }

  /** Called by Spark before the job, in an overwriting mode. */
  @Override
  public boolean deleteWithJob(FileSystem system, Path path, boolean recursive) {
    ZoneFileSystem zones = ZoneFileSystem.of(system);
    if (zones == null || output == null || !recursive) {
      return super.deleteWithJob(system, path, recursive);
    }
    try {
      return zones.deleteAtCommit(path, new Path(output));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Override
  public void commitJob(JobContext job, Seq<TaskCommitMessage> tasks) {
    try {
      ZoneFileSystem zones = zones(job);
      if (zones == null) {
        super.commitJob(job, tasks);
      } else {
        zones.commitJob(new Path(output), String.valueOf(attempt), dynamic, () -> super.commitJob(job, tasks));
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Override
  public void abortJob(JobContext job) {
    try {
      ZoneFileSystem zones = zones(job);
      if (zones == null) {
        super.abortJob(job);
      } else {
        zones.abortJob(new Path(output), String.valueOf(attempt), () -> super.abortJob(job));
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private ZoneFileSystem zones(JobContext job) throws IOException {
    return output == null ? null : ZoneFileSystem.of(new Path(output).getFileSystem(job.getConfiguration()));
  }
}
