package io.casemate.spark;

import java.io.IOException;
import java.net.URI;
import java.util.List;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.security.alias.CredentialProvider;
import org.apache.hadoop.security.alias.CredentialProviderFactory;

/**
 * Hadoop's credentials of the storage, as the agent holds them ({@code hadoop.security.credential.provider.path=casemate://agent}):
 * so that no access key is in a setting, an argument or the environment of a Spark process. Keeps none.
 */
public final class AgentCredentials extends CredentialProvider {
  private static final String SCHEME = "casemate";

  /** Hadoop finds this through {@code META-INF/services}. */
  public static final class Factory extends CredentialProviderFactory {
    @Override
    public CredentialProvider createProvider(URI name, Configuration conf) {
      return SCHEME.equals(name.getScheme()) ? new AgentCredentials() : null;
    }
  }

  /** The credential; null if the agent has none of that name, or is not asked, since it is not one of storage. */
  @Override
  public CredentialEntry getCredentialEntry(String alias) throws IOException {
    if (!alias.startsWith("fs.")) {
      return null;
    }
    Object value = Agent.get().storageCredential(alias);
    return value instanceof String text ? new Entry(alias, text.toCharArray()) : null;
  }

  private static final class Entry extends CredentialEntry {
    Entry(String alias, char[] credential) {
      super(alias, credential);
    }

    @Override
    public String toString() {
      return getAlias() + "=<" + getCredential().length + " characters>"; // Hadoop's own prints the credential
    }
  }

  @Override
  public List<String> getAliases() {
    return List.of();
  }

  @Override
  public CredentialEntry createCredentialEntry(String name, char[] credential) throws IOException {
    throw new IOException("the agent's credentials cannot be changed");
  }

  @Override
  public void deleteCredentialEntry(String name) throws IOException {
    throw new IOException("the agent's credentials cannot be changed");
  }

  @Override
  public void flush() {
    // nothing is written
  }

  @Override
  public String toString() {
    return SCHEME + "://agent";
  }
}
