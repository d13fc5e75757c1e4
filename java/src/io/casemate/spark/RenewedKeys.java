package io.casemate.spark;

import java.io.IOException;
import java.io.InputStream;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.security.GeneralSecurityException;
import java.security.InvalidAlgorithmParameterException;
import java.security.KeyStore;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.Provider;
import java.security.Security;
import java.security.cert.X509Certificate;
import java.util.List;
import java.util.Map;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.KeyManagerFactorySpi;
import javax.net.ssl.ManagerFactoryParameters;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.X509ExtendedKeyManager;

/**
 * Lets a running JVM use renewed job certificates. They are good for an hour, jobs run longer, and Spark reads its key store
 * once: so the JVM's default key managers look at the file again before each handshake, if they were made from our store.
 */
final class RenewedKeys {
  private static final String ALIAS = "casemate"; // of the key in our stores
  private static volatile Path store;

  private RenewedKeys() {}

  /** From now on, key managers made from a store with our key follow {@code file}. */
  static void follow(Path file) {
    store = file;
    Security.insertProviderAt(new FollowingProvider(), 1);
  }

  private static final class FollowingProvider extends Provider {
    private static final long serialVersionUID = 1L;

    FollowingProvider() {
      super("Casemate", "1", "Key managers that follow a renewed key store");
      putService(new Service(this, "KeyManagerFactory", KeyManagerFactory.getDefaultAlgorithm(),
          Factory.class.getName(), List.of(), Map.of()) {
        @Override
        public Object newInstance(Object parameter) {
          return new Factory();
        }
      });
    }
  }

  /** The JDK's own factory, but for our store. */
  static final class Factory extends KeyManagerFactorySpi {
    private final KeyManagerFactory usual = usual();
    private boolean ours;
    private char[] password;

    @Override
    protected void engineInit(KeyStore keys, char[] secret) throws java.security.KeyStoreException,
        java.security.NoSuchAlgorithmException, java.security.UnrecoverableKeyException {
      usual.init(keys, secret);
      ours = keys != null && keys.isKeyEntry(ALIAS);
      password = ours ? secret.clone() : null;
    }

    @Override
    protected void engineInit(ManagerFactoryParameters parameters) throws InvalidAlgorithmParameterException {
      usual.init(parameters);
    }

    @Override
    protected KeyManager[] engineGetKeyManagers() {
      KeyManager[] managers = usual.getKeyManagers();
      for (int i = 0; ours && i < managers.length; i++) {
        if (managers[i] instanceof X509ExtendedKeyManager manager) {
          managers[i] = new Following(manager, password);
        }
      }
      return managers;
    }
  }

  private static KeyManagerFactory usual() {
    try {
      return KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm(), "SunJSSE");
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException("this JVM has no usual key managers", e);
    }
  }

  /** Chooses from the store as it is now; keeps what it has while a new one cannot be read. */
  private static final class Following extends X509ExtendedKeyManager {
    private final char[] password;
    private volatile X509ExtendedKeyManager current;
    private volatile FileTime read = FileTime.fromMillis(0);

    Following(X509ExtendedKeyManager first, char[] password) {
      this.current = first;
      this.password = password;
    }

    private X509ExtendedKeyManager latest() {
      try {
        FileTime changed = Files.getLastModifiedTime(store);
        if (!changed.equals(read)) {
          synchronized (this) {
            current = load();
            read = changed;
          }
        }
      } catch (IOException | GeneralSecurityException | RuntimeException e) {
        // the certificate in hand is good until it ends; the next handshake looks again
      }
      return current;
    }

    private X509ExtendedKeyManager load() throws IOException, GeneralSecurityException {
      KeyStore keys = KeyStore.getInstance("PKCS12");
      try (InputStream in = Files.newInputStream(store)) {
        keys.load(in, password);
      }
      KeyManagerFactory factory = usual();
      factory.init(keys, password);
      for (KeyManager manager : factory.getKeyManagers()) {
        if (manager instanceof X509ExtendedKeyManager found) {
          return found;
        }
      }
      throw new GeneralSecurityException("no X.509 key manager");
    }

    @Override
    public String chooseEngineClientAlias(String[] types, Principal[] issuers, SSLEngine engine) {
      return latest().chooseEngineClientAlias(types, issuers, engine);
    }

    @Override
    public String chooseEngineServerAlias(String type, Principal[] issuers, SSLEngine engine) {
      return latest().chooseEngineServerAlias(type, issuers, engine);
    }

    @Override
    public String chooseClientAlias(String[] types, Principal[] issuers, Socket socket) {
      return latest().chooseClientAlias(types, issuers, socket);
    }

    @Override
    public String chooseServerAlias(String type, Principal[] issuers, Socket socket) {
      return latest().chooseServerAlias(type, issuers, socket);
    }

    @Override
    public String[] getClientAliases(String type, Principal[] issuers) {
      return latest().getClientAliases(type, issuers);
    }

    @Override
    public String[] getServerAliases(String type, Principal[] issuers) {
      return latest().getServerAliases(type, issuers);
    }

    @Override
    public X509Certificate[] getCertificateChain(String alias) {
      return current.getCertificateChain(alias);
    }

    @Override
    public PrivateKey getPrivateKey(String alias) {
      return current.getPrivateKey(alias);
    }
  }
}
