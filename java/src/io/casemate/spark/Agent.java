package io.casemate.spark;

import java.io.IOException;
import java.nio.file.Path;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * This process's view of the agent: the session, dataset keys and recorded generations, each asked for once.
 * Thread-safe. Nothing is remembered of a failure, so that a late agent is found, and without one nothing opens.
 */
final class Agent {
  static final String SOCKET_VARIABLE = "CASEMATE_AGENT_SOCKET";

  private static final long CURRENT_KEY_LIFETIME_NANOS = 60_000_000_000L;
  private static final long UNRECORDED_LIFETIME_NANOS = 2_000_000_000L;
  private static volatile Agent instance;

  private final AgentClient client;
  private volatile Session session;
  private volatile FileIds fileIds;
  private final Map<String, Timed<DatasetKey>> keys = new ConcurrentHashMap<>();
  private final Map<String, Timed<Generation>> generations = new ConcurrentHashMap<>();
  private final Map<String, Manifest> manifests = new ConcurrentHashMap<>();
  private final Changes changes = new Changes();
  private final Set<String> reported = ConcurrentHashMap.newKeySet();

  private record Timed<T>(T value, long nanos) {}

  private Agent(AgentClient client) {
    this.client = client;
  }

  /** @throws AgentException if this process was not started through {@code casemate run} */
  static Agent get() throws AgentException {
    Agent found = instance;
    if (found == null) {
      String socket = System.getenv(SOCKET_VARIABLE);
      if (socket == null || socket.isEmpty()) {
        throw new AgentException(
            SOCKET_VARIABLE + " is not set: start this program through `casemate run` or `casemate submit`", null);
      }
      synchronized (Agent.class) {
        if (instance == null) {
          instance = new Agent(new AgentClient(Path.of(socket)));
        }
        found = instance;
      }
    }
    return found;
  }

  Session session() throws IOException {
    Session found = session;
    if (found == null) {
      try {
        found = Session.parse(client.request(Map.of("op", "session"), true, ""));
      } catch (CasemateException e) {
        throw e;
      } catch (IOException e) {
        throw new AgentException(e.getMessage(), e);
      }
      session = found;
    }
    return found;
  }

  /** The newest version of a dataset's key, for writing; asked for again after a minute, since keys are rotated. */
  DatasetKey currentKey(String dataset, String file) throws IOException {
    Timed<DatasetKey> found = keys.get(dataset);
    if (found == null || System.nanoTime() - found.nanos() > CURRENT_KEY_LIFETIME_NANOS) {
      found = new Timed<>(requestKey(dataset, null, file), System.nanoTime());
      keys.put(dataset, found);
    }
    return found.value();
  }

  /** One version of a dataset's key, for reading. @throws RefusedException {@code key-denied} */
  DatasetKey key(String dataset, int version, String file) throws IOException {
    String name = dataset + "/" + version;
    Timed<DatasetKey> found = keys.get(name);
    if (found == null) {
      found = new Timed<>(requestKey(dataset, version, file), 0);
      keys.put(name, found);
    }
    return found.value();
  }

  /** One version of a dataset's key, or with null the newest; the caller reports a refusal if it matters. */
  DatasetKey unreportedKey(String dataset, Integer version) throws IOException {
    String name = version == null ? dataset : dataset + "/" + version;
    Timed<DatasetKey> found = keys.get(name);
    if (found == null || version == null && System.nanoTime() - found.nanos() > CURRENT_KEY_LIFETIME_NANOS) {
      Map<String, Object> reply = client.request(keyRequest(dataset, version), true, dataset);
      found = new Timed<>(datasetKey(reply, dataset, version), System.nanoTime());
      keys.put(name, found);
    }
    return found.value();
  }

  private DatasetKey requestKey(String dataset, Integer version, String file) throws IOException {
    return datasetKey(ask(keyRequest(dataset, version), true, file), dataset, version);
  }

  private static Map<String, Object> keyRequest(String dataset, Integer version) {
    Map<String, Object> request = new HashMap<>();
    request.put("op", "key");
    request.put("dataset", dataset);
    request.put("version", version == null ? null : Long.valueOf(version));
    return request;
  }

  private static DatasetKey datasetKey(Map<String, Object> reply, String dataset, Integer version)
      throws AgentException {
    try {
      byte[] key = Base64.getDecoder().decode((String) reply.get("key"));
      int got = Math.toIntExact((Long) reply.get("version"));
      if (key.length == 32 && got > 0 && dataset.equals(reply.get("dataset")) && (version == null || version == got)) {
        return new DatasetKey(dataset, got, key);
      }
    } catch (RuntimeException e) {
      // said below; the cause could quote the reply
    }
    throw new AgentException("the agent's reply is not the 32-byte key of " + dataset + " that was asked for", null);
  }

  /** A credential of the storage by Hadoop's name for it; null if there is none. Never remembered: they are renewed. */
  Object storageCredential(String name) throws IOException {
    return ask(Map.of("op", "storage-credential", "name", name), true, name).get("value");
  }

  /** What is recorded for a location. A recorded generation is remembered until {@link #forget}; none, for 2 s. */
  Generation generation(String dataset, String location) throws IOException {
    String name = dataset + " " + location;
    Timed<Generation> found = generations.get(name);
    if (found == null || !found.value().recorded() && System.nanoTime() - found.nanos() > UNRECORDED_LIFETIME_NANOS) {
      found = new Timed<>(requestGeneration(dataset, location), System.nanoTime());
      generations.put(name, found);
    }
    return found.value();
  }

  private Generation requestGeneration(String dataset, String location) throws IOException {
    Map<String, Object> reply =
        ask(Map.of("op", "generation", "dataset", dataset, "location", location), true, location);
    Object digest = reply.get("digest");
    if (reply.get("generation") instanceof Long number && number >= 0 && (number == 0) == (digest == null)
        && (digest == null || digest instanceof String)) {
      return new Generation(number, (String) digest);
    }
    throw new AgentException("the agent's reply is not a generation of " + location, null);
  }

  /** Records the next commit. @throws RefusedException {@code generation-conflict} if another job was faster */
  void record(String dataset, String location, Generation generation) throws IOException {
    generations.remove(dataset + " " + location);
    ask(Map.of("op", "commit", "dataset", dataset, "location", location, "generation", generation.number(),
        "digest", generation.digest()), false, location);
    generations.put(dataset + " " + location, new Timed<>(generation, System.nanoTime()));
  }

  /** Forgets every generation, so that the next look sees what other processes committed since. */
  void forget() {
    generations.clear();
  }

  /** Verified manifests by dataset, location and generation. */
  Map<String, Manifest> manifests() {
    return manifests;
  }

  /** The file ids of this process's job. */
  FileIds fileIds() throws IOException {
    FileIds found = fileIds;
    if (found == null) {
      found = new FileIds(session().job());
      fileIds = found;
    }
    return found;
  }

  Changes changes() {
    return changes;
  }

  private Map<String, Object> ask(Map<String, Object> request, boolean repeatable, String subject)
      throws IOException {
    try {
      return client.request(request, repeatable, subject);
    } catch (RefusedException e) {
      throw report(e);
    }
  }

  /** Tells the agent of a refusal, once each, so that {@code casemate run} can print it; returns it to be thrown. */
  <E extends CasemateException> E report(E refusal) {
    String message = refusal.getMessage().replace('\n', ' ');
    if (reported.size() < 1000 && reported.add(message)) {
      String detail = message.substring(refusal.code().length() + 2);
      try {
        client.request(Map.of("op", "report", "code", refusal.code(), "message", detail), true, "");
      } catch (IOException ignored) {
        // the refusal stands whether or not somebody hears of it
      }
    }
    return refusal;
  }
}
