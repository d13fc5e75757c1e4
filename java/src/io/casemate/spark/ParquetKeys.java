package io.casemate.spark;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.Base64;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;
import org.apache.hadoop.conf.Configuration;
import org.apache.parquet.crypto.KeyAccessDeniedException;
import org.apache.parquet.crypto.ParquetCryptoRuntimeException;
import org.apache.parquet.crypto.keytools.KmsClient;

/**
 * Wraps the keys of Parquet's modular encryption under dataset keys of the agent ({@code parquet.encryption.kms.client.class}).
 * A master key identifier is a dataset's name; no key leaves this process. Thread-safe.
 *
 * <p>A wrapped key is {@code casemate:parquet:v1:VERSION:BASE64}, where the base64 holds nonce (12 bytes), ciphertext and tag
 * (16) of AES-256-GCM under that version of the dataset key; associated data {@code casemate:parquet:v1:DATASET:VERSION}.
 */
public final class ParquetKeys implements KmsClient {
  private static final String FORMAT = "casemate:parquet:v1:";
  private static final Pattern WRAPPED = Pattern.compile(FORMAT + "([1-9][0-9]{0,8}):([A-Za-z0-9+/]{56,}={0,2})");
  private static final int NONCE_SIZE_BYTES = 12;

  private final SecureRandom random = new SecureRandom();

  /** The agent's refusal to hand out a dataset's key. */
  static final class DatasetDeniedException extends KeyAccessDeniedException {
    private static final long serialVersionUID = 1L;

    private final String dataset;

    DatasetDeniedException(String dataset, RefusedException cause) {
      super(cause.getMessage(), cause);
      this.dataset = dataset;
    }

    String dataset() {
      return dataset;
    }
  }

  /** For Parquet, which makes the instance by name. */
  public ParquetKeys() {}

  @Override
  public void initialize(Configuration conf, String instance, String url, String accessToken) {
    // the agent is found through the environment, and who asks it is settled by its socket
  }

  @Override
  public String wrapKey(byte[] key, String dataset) {
    check(dataset);
    DatasetKey wrapping = datasetKey(dataset, null);
    byte[] nonce = new byte[NONCE_SIZE_BYTES];
    random.nextBytes(nonce);
    try {
      byte[] sealed = gcm(Cipher.ENCRYPT_MODE, wrapping, nonce, key, 0);
      byte[] wrapped = Arrays.copyOf(nonce, nonce.length + sealed.length);
      System.arraycopy(sealed, 0, wrapped, nonce.length, sealed.length);
      return FORMAT + wrapping.version() + ":" + Base64.getEncoder().encodeToString(wrapped);
    } catch (GeneralSecurityException e) {
      throw new ParquetCryptoRuntimeException("this Java has no AES-GCM", e);
    }
  }

  @Override
  public byte[] unwrapKey(String wrapped, String dataset) {
    check(dataset);
    Matcher parts = WRAPPED.matcher(wrapped);
    byte[] sealed = parts.matches() ? decode(parts.group(2)) : null;
    if (sealed == null) {
      throw new ParquetCryptoRuntimeException("file-malformed: a Parquet key of " + dataset + " is not one that Casemate wrapped");
    }
    DatasetKey wrapping = datasetKey(dataset, Integer.valueOf(parts.group(1)));
    try {
      return gcm(Cipher.DECRYPT_MODE, wrapping, Arrays.copyOf(sealed, NONCE_SIZE_BYTES), sealed, NONCE_SIZE_BYTES);
    } catch (GeneralSecurityException e) {
      throw new ParquetCryptoRuntimeException("file-tampered: a Parquet key does not open with version "
          + wrapping.version() + " of " + dataset, e);
    }
  }

  /** Base64 in its one spelling, or null. */
  private static byte[] decode(String text) {
    try {
      byte[] bytes = Base64.getDecoder().decode(text);
      return Base64.getEncoder().encodeToString(bytes).equals(text) ? bytes : null;
    } catch (IllegalArgumentException e) {
      return null;
    }
  }

  private static void check(String dataset) {
    if (!Preamble.DATASET.matcher(dataset).matches()) {
      throw new ParquetCryptoRuntimeException(
          "master key " + dataset + ": need a dataset's name, owner/dataset, as in hospital/patients");
    }
  }

  private static DatasetKey datasetKey(String dataset, Integer version) {
    try {
      return Agent.get().unreportedKey(dataset, version);
    } catch (RefusedException e) {
      throw new DatasetDeniedException(dataset, e);
    } catch (IOException e) {
      throw new ParquetCryptoRuntimeException(e.getMessage(), e);
    }
  }

  private static byte[] gcm(int mode, DatasetKey key, byte[] nonce, byte[] in, int offset)
      throws GeneralSecurityException {
    Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
    cipher.init(mode, new SecretKeySpec(key.key(), "AES"), new GCMParameterSpec(128, nonce));
    cipher.updateAAD((FORMAT + key.dataset() + ":" + key.version()).getBytes(StandardCharsets.UTF_8));
    return cipher.doFinal(in, offset, in.length - offset);
  }
}
