package io.casemate.spark;

import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import javax.net.ServerSocketFactory;
import javax.net.SocketFactory;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/**
 * Socket factories that give the Python gateway (Py4J) TLS 1.3 with certificates of the job's authority on both sides,
 * and everybody else what they had before.
 */
final class GatewaySockets {
  private static final String PASSWORD_VARIABLE = "_SPARK_SSL_RPC_KEY_STORE_PASSWORD"; // Spark's own name for it
  private static final String GATEWAY_PACKAGE = "py4j.";
  private static final String[] PROTOCOLS = {"TLSv1.3"};

  private final SSLContext context;

  private GatewaySockets(SSLContext context) {
    this.context = context;
  }

  /** Reads {@code key.p12} and {@code trust.p12}; the password of both comes in the environment. */
  static GatewaySockets create(Path directory) throws IOException, GeneralSecurityException {
    String password = System.getenv(PASSWORD_VARIABLE);
    if (password == null) {
      throw new IOException(PASSWORD_VARIABLE + " is not set: this JVM was not started by `casemate run`");
    }
    KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    keys.init(load(directory.resolve("key.p12"), password), password.toCharArray());
    TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(load(directory.resolve("trust.p12"), password));
    SSLContext context = SSLContext.getInstance("TLSv1.3");
    context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
    return new GatewaySockets(context);
  }

  private static KeyStore load(Path path, String password) throws IOException, GeneralSecurityException {
    KeyStore store = KeyStore.getInstance("PKCS12");
    try (InputStream in = Files.newInputStream(path)) {
      store.load(in, password.toCharArray());
    }
    return store;
  }

  ServerSocketFactory serverFactory(ServerSocketFactory others) {
    return new ServerFactory(others);
  }

  SocketFactory clientFactory(SocketFactory others) {
    return new ClientFactory(others);
  }

  /** Whether the gateway called the factory: it is the nearest caller that is neither ours nor the JDK's. */
  private static boolean forGateway() {
    return StackWalker.getInstance().walk(frames -> frames
        .map(StackWalker.StackFrame::getClassName)
        .filter(name -> !name.startsWith(GatewaySockets.class.getName()) && !name.startsWith("java"))
        .findFirst()
        .map(name -> name.startsWith(GATEWAY_PACKAGE))
        .orElse(false));
  }

  private ServerSocket secured(ServerSocket socket) {
    SSLServerSocket server = (SSLServerSocket) socket;
    server.setEnabledProtocols(PROTOCOLS);
    server.setNeedClientAuth(true);
    return server;
  }

  private Socket secured(Socket socket) {
    ((SSLSocket) socket).setEnabledProtocols(PROTOCOLS);
    return socket;
  }

  private final class ServerFactory extends ServerSocketFactory {
    private final ServerSocketFactory others;

    ServerFactory(ServerSocketFactory others) {
      this.others = others;
    }

    @Override
    public ServerSocket createServerSocket() throws IOException {
      return forGateway() ? secured(context.getServerSocketFactory().createServerSocket()) : others.createServerSocket();
    }

    @Override
    public ServerSocket createServerSocket(int port) throws IOException {
      return forGateway()
          ? secured(context.getServerSocketFactory().createServerSocket(port))
          : others.createServerSocket(port);
    }

    @Override
    public ServerSocket createServerSocket(int port, int backlog) throws IOException {
      return forGateway()
          ? secured(context.getServerSocketFactory().createServerSocket(port, backlog))
          : others.createServerSocket(port, backlog);
    }

    @Override
    public ServerSocket createServerSocket(int port, int backlog, InetAddress address) throws IOException {
      return forGateway()
          ? secured(context.getServerSocketFactory().createServerSocket(port, backlog, address))
          : others.createServerSocket(port, backlog, address);
    }
  }

  private final class ClientFactory extends SocketFactory {
    private final SocketFactory others;

    ClientFactory(SocketFactory others) {
      this.others = others;
    }

    @Override
    public Socket createSocket() throws IOException {
      return forGateway() ? secured(context.getSocketFactory().createSocket()) : others.createSocket();
    }

    @Override
    public Socket createSocket(String host, int port) throws IOException {
      return forGateway()
          ? secured(context.getSocketFactory().createSocket(host, port))
          : others.createSocket(host, port);
    }

    @Override
    public Socket createSocket(String host, int port, InetAddress local, int localPort) throws IOException {
      return forGateway()
          ? secured(context.getSocketFactory().createSocket(host, port, local, localPort))
          : others.createSocket(host, port, local, localPort);
    }

    @Override
    public Socket createSocket(InetAddress host, int port) throws IOException {
      return forGateway()
          ? secured(context.getSocketFactory().createSocket(host, port))
          : others.createSocket(host, port);
    }

    @Override
    public Socket createSocket(InetAddress host, int port, InetAddress local, int localPort) throws IOException {
      return forGateway()
          ? secured(context.getSocketFactory().createSocket(host, port, local, localPort))
          : others.createSocket(host, port, local, localPort);
    }
  }
}
