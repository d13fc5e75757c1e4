package io.casemate.spark;

import java.io.EOFException;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Map;

/**
 * Speaks to the agent of {@code casemate run} over its Unix socket: 4-byte length, UTF-8 JSON object, one reply each.
 * Thread-safe: every request has a connection to itself; idle ones are kept and made anew when the agent restarted.
 */
final class AgentClient {
  private static final int MAX_MESSAGE_SIZE_BYTES = 16 << 20;
  private static final int MAX_IDLE_CONNECTIONS = 4;

  private final Path socket;
  private final Deque<SocketChannel> idle = new ArrayDeque<>();

  AgentClient(Path socket) {
    this.socket = socket;
  }

  /**
   * The agent's reply. An idle connection that turns out dead is replaced once, if asking twice does no harm.
   *
   * @throws AgentException if the agent does not answer
   * @throws RefusedException with the agent's own code if it answers no
   */
  Map<String, Object> request(Map<String, Object> message, boolean repeatable, String subject) throws IOException {
    byte[] request = Json.canonical(message);
    SocketChannel kept = repeatable ? takeIdle() : null;
    if (kept != null) {
      try {
        return reply(kept, request, subject);
      } catch (AgentException e) {
        if (Thread.currentThread().isInterrupted()) {
          throw e;
        }
      }
    }
    return reply(connect(), request, subject);
  }

  private Map<String, Object> reply(SocketChannel channel, byte[] request, String subject) throws IOException {
    Map<String, Object> reply;
    try {
      send(channel, request);
      reply = Json.parseObject(receive(channel));
    } catch (IOException e) {
      channel.close();
      throw new AgentException("the agent on " + socket + " does not answer: " + e, e);
    }
    keep(channel);
    if (reply.get("error") instanceof Map<?, ?> error) {
      throw new RefusedException(String.valueOf(error.get("code")), subject, String.valueOf(error.get("message")));
    }
    return reply;
  }

  private SocketChannel connect() throws AgentException {
    SocketChannel channel = null;
    try {
      channel = SocketChannel.open(StandardProtocolFamily.UNIX);
      channel.connect(UnixDomainSocketAddress.of(socket));
      return channel;
    } catch (IOException | RuntimeException e) {
      if (channel != null) {
        try {
          channel.close();
        } catch (IOException ignored) {
          // the first failure is the one to tell
        }
      }
      throw new AgentException("cannot reach the agent on " + socket + ": " + e.getMessage(), e);
    }
  }

  private static void send(SocketChannel channel, byte[] message) throws IOException {
    ByteBuffer frame = ByteBuffer.allocate(4 + message.length).putInt(message.length).put(message).flip();
    while (frame.hasRemaining()) {
      channel.write(frame);
    }
  }

  private static byte[] receive(SocketChannel channel) throws IOException {
    int size = readFully(channel, ByteBuffer.allocate(4)).getInt();
    if (size < 2 || size > MAX_MESSAGE_SIZE_BYTES) {
      throw new IOException("message of " + size + " bytes");
    }
    return readFully(channel, ByteBuffer.allocate(size)).array();
  }

  private static ByteBuffer readFully(SocketChannel channel, ByteBuffer buffer) throws IOException {
    while (buffer.hasRemaining()) {
      if (channel.read(buffer) < 0) {
        throw new EOFException("connection closed");
      }
    }
    return buffer.flip();
  }

  private SocketChannel takeIdle() {
    synchronized (idle) {
      return idle.poll();
    }
  }

  private void keep(SocketChannel channel) throws IOException {
    synchronized (idle) {
      if (idle.size() < MAX_IDLE_CONNECTIONS) {
        idle.push(channel);
        return;
      }
    }
    channel.close();
  }
}
