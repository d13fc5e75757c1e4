package io.casemate.spark;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.LongAdder;
import org.apache.hadoop.fs.FileSystem;

/**
 * Decrypts what a stream that is read in order will want next, on a thread that all streams of the JVM share. It is never
 * waited for unless it has begun, so that it costs nothing where no thread is free. Used by one thread at a time.
 *
 * <p>Bounds for the whole JVM: as many threads as processors, which end when idle; two windows of a quarter megabyte for
 * each of at most four streams per processor. Local files are read ahead only while there is a processor
 * to spare for every such stream: with all of them at work it would gain nothing and cost a copy.
 */
final class ReadAhead {
  private static final int PROCESSORS = Runtime.getRuntime().availableProcessors();
  private static final AtomicInteger THREADS = new AtomicInteger();
  private static final ThreadPoolExecutor POOL = new ThreadPoolExecutor(
      0, PROCESSORS, 5, TimeUnit.SECONDS, new SynchronousQueue<>(), task -> {
        Thread thread = new Thread(task, "casemate-read-ahead-" + THREADS.incrementAndGet());
        thread.setDaemon(true);
        return thread;
      });
  private static final Semaphore STREAMS = new Semaphore(4 * PROCESSORS);
  private static final AtomicInteger READERS = new AtomicInteger();
  private static final LongAdder TAKEN = new LongAdder();

  private final SegmentReader segments;
  private Window spare = new Window();
  private Task task;
  private boolean permitted;

  private ReadAhead(SegmentReader segments) {
    this.segments = segments.another();
  }

  /** Of a stream that turns out to be read in order. The caller {@link #close}s it. */
  static ReadAhead of(SegmentReader segments) {
    READERS.incrementAndGet();
    return new ReadAhead(segments);
  }

  private boolean isAllowed() {
    if (!segments.stored().isRemote() && 2 * READERS.get() > PROCESSORS) {
      return false;
    }
    permitted = permitted || STREAMS.tryAcquire();
    return permitted;
  }

  private enum State { WAITING, RUNNING, DONE, CANCELLED }

  private final class Task implements Runnable {
    private final long first;
    private final long end;
    private final Window window;
    private State state = State.WAITING;
    private boolean read;
    private long counted;

    Task(long first, long end, Window window) {
      this.first = first;
      this.end = end;
      this.window = window;
    }

    @Override
    public void run() {
      if (!advance(State.WAITING, State.RUNNING)) {
        return;
      }
      FileSystem.Statistics counter = segments.stored().counter();
      long before = counter == null ? 0 : counter.getThreadStatistics().getBytesRead();
      try {
        window.read(segments, first, end);
        read = true;
      } catch (IOException | RuntimeException e) {
        // whoever wants these bytes reads them anew, and learns what is wrong
      } finally {
        if (counter != null) { // what was read belongs to the thread that asked for it
          counted = counter.getThreadStatistics().getBytesRead() - before;
          counter.incrementBytesRead(-counted);
        }
        advance(State.RUNNING, State.DONE);
      }
    }

    private synchronized boolean advance(State from, State to) {
      boolean can = state == from;
      state = can ? to : state;
      notifyAll();
      return can;
    }

    private synchronized void await() throws InterruptedIOException {
      try {
        while (state == State.RUNNING) {
          wait();
        }
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new InterruptedIOException("interrupted while reading ahead");
      }
    }
  }

  /** Begins with segments {@code first} to {@code end - 1}, if a thread is free. */
  void start(long first, long end) {
    if (task != null || first >= end || !isAllowed()) {
      return;
    }
    Task next = new Task(first, end, spare);
    try {
      POOL.execute(next);
      task = next;
    } catch (RejectedExecutionException busy) {
      // read when it is wanted
    }
  }

  /**
   * The window that begins with segment {@code first}, which is the caller's in exchange for {@code old}; null when it
   * is not there.
   */
  Window take(long first, Window old) throws IOException {
    Task begun = task;
    if (begun == null) {
      return null;
    }
    if (begun.advance(State.WAITING, State.CANCELLED)) {
      task = null;
      return null;
    }
    begun.await();
    task = null;
    if (begun.counted > 0) {
      segments.stored().counter().incrementBytesRead(begun.counted);
    }
    if (!begun.read || begun.first != first) {
      return null;
    }
    spare = old;
    TAKEN.increment();
    return begun.window;
  }

  /** Ends it: when this returns, nothing of the stream is used by another thread. */
  void close() {
    READERS.decrementAndGet();
    if (permitted) {
      STREAMS.release();
    }
    Task begun = task;
    task = null;
    if (begun != null && !begun.advance(State.WAITING, State.CANCELLED)) {
      boolean interrupted = false;
      while (true) {
        try {
          begun.await();
          break;
        } catch (InterruptedIOException e) {
          interrupted = Thread.interrupted();
        }
      }
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }

  /** For tests: threads at work or idle, streams that are read ahead, and windows that were read so and taken. */
  static long[] usage() {
    return new long[] {POOL.getPoolSize(), 4 * PROCESSORS - STREAMS.availablePermits(), TAKEN.sum()};
  }
}
