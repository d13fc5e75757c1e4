package io.casemate.spark;

import java.io.IOException;
import org.apache.hadoop.fs.FileSystem;

/** The parts of a zone file system that need the agent. Made at its first access: see {@link ZoneFileSystem}. */
record Guard(Agent agent, Places places, StoredFiles files, Manifests manifests, ZoneChanges changes, boolean strict) {
  /** @throws CasemateException if there is no agent, or its session is not understood */
  static Guard create(FileSystem stored, FileSystem storage) throws IOException {
    Agent agent = Agent.get();
    Places places = new Places(agent, storage.getUri().getScheme().equals("file"));
    StoredFiles files = new StoredFiles(agent, stored, places);
    Manifests manifests = new Manifests(agent, stored, files);
    Commits commits = new Commits(agent, stored, files, manifests);
    ZoneChanges changes = new ZoneChanges(agent, places, commits, files, manifests, stored, storage);
    return new Guard(agent, places, files, manifests, changes, places.session().strict());
  }
}
