package io.casemate.spark;

import java.lang.instrument.Instrumentation;
import java.lang.reflect.Field;
import java.nio.file.Path;
import java.util.Map;
import java.util.Set;
import javax.net.ServerSocketFactory;
import javax.net.SocketFactory;

/**
 * Java agent of every Spark process ({@code -javaagent:casemate-spark.jar=[gateway:]DIRECTORY}), for what Spark has no setting
 * for: demanding client certificates, following renewed ones, and in a driver TLS under the gateway between Python and the JVM.
 *
 * <p>The gateway takes the JVM's default socket factories, which have no setting either, so they are replaced here by
 * ones that differ for the gateway alone. If any of this cannot be done the JVM does not start.
 */
public final class JvmAgent {
  private static final String GATEWAY = "gateway:";

  private JvmAgent() {}

  /** The JVM calls this before {@code main}; the directory holds the process's key and trust store. */
  public static void premain(String argument, Instrumentation instrumentation) throws Exception {
    boolean gateway = argument.startsWith(GATEWAY);
    Path directory = Path.of(gateway ? argument.substring(GATEWAY.length()) : argument);
    WarmUp.start();
    ClientCertificates.demand(instrumentation);
    RenewedKeys.follow(directory.resolve("key.p12"));
    if (gateway) {
      GatewaySockets sockets = GatewaySockets.create(directory);
      instrumentation.redefineModule(ServerSocketFactory.class.getModule(), Set.of(), Map.of(),
          Map.of("javax.net", Set.of(JvmAgent.class.getModule())), Set.of(), Map.of());
      replace(ServerSocketFactory.class, sockets.serverFactory(ServerSocketFactory.getDefault()));
      replace(SocketFactory.class, sockets.clientFactory(SocketFactory.getDefault()));
    }
  }

  private static <T> void replace(Class<T> type, T factory) throws ReflectiveOperationException {
    Field field = type.getDeclaredField("theFactory");
    field.setAccessible(true);
    field.set(null, factory);
  }
}
