package io.casemate.spark;

import java.lang.instrument.Instrumentation;
import java.lang.reflect.Field;
import java.nio.file.Path;
import java.util.Map;
import java.util.Set;
import javax.net.ServerSocketFactory;
import javax.net.SocketFactory;

/**
 * Java agent of a driver ({@code -javaagent:casemate-spark.jar=DIRECTORY}): puts TLS under the gateway between Python and
 * the JVM before Spark opens it. Spark has no setting for that, and on some TEEs the loopback device is the host's.
 *
 * <p>The gateway takes the JVM's default socket factories, which have no setting either, so they are replaced here by
 * ones that differ for the gateway alone. If that cannot be done the JVM does not start.
 */
public final class DriverAgent {
  private DriverAgent() {}

  /** The JVM calls this before {@code main}; {@code directory} holds the process's key and trust store. */
  public static void premain(String directory, Instrumentation instrumentation) throws Exception {
    GatewaySockets sockets = GatewaySockets.create(Path.of(directory));
    instrumentation.redefineModule(ServerSocketFactory.class.getModule(), Set.of(), Map.of(),
        Map.of("javax.net", Set.of(DriverAgent.class.getModule())), Set.of(), Map.of());
    replace(ServerSocketFactory.class, sockets.serverFactory(ServerSocketFactory.getDefault()));
    replace(SocketFactory.class, sockets.clientFactory(SocketFactory.getDefault()));
  }

  private static <T> void replace(Class<T> type, T factory) throws ReflectiveOperationException {
    Field field = type.getDeclaredField("theFactory");
    field.setAccessible(true);
    field.set(null, factory);
  }
}
