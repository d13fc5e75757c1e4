package io.casemate.spark;

import java.io.Closeable;
import java.io.EOFException;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.StreamCapabilities;

/**
 * An encrypted file as it lies on the storage. Thread-safe. Never mapped into memory: whoever holds the storage could
 * change a mapped page between the check of its tag and its decryption.
 */
interface StoredBytes extends Closeable {
  /**
   * Reads {@code size} bytes at {@code from}. @param jump whether what follows is likely to be read elsewhere
   *
   * @throws EOFException if the file ends before
   */
  void readFully(long from, byte[] out, int offset, int size, boolean jump) throws IOException;

  /** Whether a read waits for more than memory and the local disk. */
  boolean isRemote();

  /** Where the storage counts the bytes that a thread has read; null if it does not. */
  FileSystem.Statistics counter();

  /** The storage's own stream; null for local files. */
  FSDataInputStream stream();

  /** Frees connections and buffers; the next read takes new ones. */
  void unbuffer();

  /** Any Hadoop stream. Positioned reads leave its position alone; the others move it. */
  final class Streamed implements StoredBytes {
    private final FSDataInputStream in;
    private final boolean remote;
    private final FileSystem.Statistics counter;

    Streamed(FSDataInputStream in, boolean remote, FileSystem.Statistics counter) {
      this.in = in;
      this.remote = remote;
      this.counter = counter;
    }

    @Override
    public synchronized void readFully(long from, byte[] out, int offset, int size, boolean jump) throws IOException {
      if (jump) {
        in.readFully(from, out, offset, size);
        return;
      }
      if (in.getPos() != from) {
        in.seek(from);
      }
      in.readFully(out, offset, size);
    }

    @Override
    public boolean isRemote() {
      return remote;
    }

    @Override
    public FileSystem.Statistics counter() {
      return counter;
    }

    @Override
    public FSDataInputStream stream() {
      return in;
    }

    @Override
    public void unbuffer() {
      if (in.hasCapability(StreamCapabilities.UNBUFFER)) {
        in.unbuffer();
      }
    }

    @Override
    public void close() throws IOException {
      in.close();
    }
  }

  /** A local file, without the buffers and copies of Hadoop's stream; counted as Hadoop counts it. */
  final class Local implements StoredBytes {
    private final FileChannel channel;
    private final FileSystem.Statistics counter;

    Local(Path file, FileSystem.Statistics counter) throws IOException {
      try {
        this.channel = FileChannel.open(file, StandardOpenOption.READ);
      } catch (NoSuchFileException e) {
        throw new FileNotFoundException(file + " (No such file or directory)");
      }
      this.counter = counter;
    }

    @Override
    public void readFully(long from, byte[] out, int offset, int size, boolean jump) throws IOException {
      ByteBuffer buffer = ByteBuffer.wrap(out, offset, size);
      while (buffer.hasRemaining()) {
        if (channel.read(buffer, from + size - buffer.remaining()) < 0) {
          throw new EOFException("ends before byte " + (from + size));
        }
      }
      counter.incrementBytesRead(size);
    }

    @Override
    public boolean isRemote() {
      return false;
    }

    @Override
    public FileSystem.Statistics counter() {
      return counter;
    }

    @Override
    public FSDataInputStream stream() {
      return null;
    }

    @Override
    public void unbuffer() {
      // nothing is buffered
    }

    @Override
    public void close() throws IOException {
      channel.close();
    }
  }
}
