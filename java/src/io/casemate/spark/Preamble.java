package io.casemate.spark;

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

/**
 * The first 512 bytes of an encrypted file, format version 1:
 * {@code "CSMT" | version u8 | flags u8 | header length u16 | RFC 8785 JSON | zeros}.
 * Reading accepts exactly the bytes that writing can give; the whole preamble is associated data of the body.
 */
final class Preamble {
  static final int SIZE_BYTES = 512;
  static final Pattern DATASET = Pattern.compile("[a-z0-9][a-z0-9._-]{0,62}/[a-z0-9][a-z0-9._-]{0,126}");

  private static final int FIXED_SIZE_BYTES = 8;
  private static final int NONCE_SIZE_BYTES = 12;
  private static final byte[] FIXED = {'C', 'S', 'M', 'T', 1, 0};
  // Canonical JSON of strings that need no escape has one spelling, so a pattern is a complete and strict parser.
  private static final Pattern HEADER = Pattern.compile(
      "\\{\"alg\":\"AES256-GCM-HKDF-64K\",\"dataset\":\"(" + DATASET + ")\",\"file_id\":\"([A-Za-z0-9+/]{22}==)\","
          + "\"kek\":([1-9][0-9]{0,9}),\"wrapped_dek\":\"([A-Za-z0-9+/]{80})\"\\}");

  private final byte[] bytes;
  private final String dataset;
  private final String fileId;
  private final int keyVersion;
  private final byte[] wrappedKey;

  private Preamble(byte[] bytes, String dataset, String fileId, int keyVersion, byte[] wrappedKey) {
    this.bytes = bytes;
    this.dataset = dataset;
    this.fileId = fileId;
    this.keyVersion = keyVersion;
    this.wrappedKey = wrappedKey;
  }

  /** @throws IntegrityException {@code file-malformed} for any deviation from what {@link #create} writes */
  static Preamble parse(byte[] bytes, String file) throws IntegrityException {
    if (bytes.length != SIZE_BYTES || !Arrays.equals(bytes, 0, 4, FIXED, 0, 4)) {
      throw malformed(file, "does not begin as an encrypted file does");
    }
    if (bytes[4] != 1 || bytes[5] != 0) {
      throw malformed(file, "format version " + bytes[4] + ", flags " + bytes[5] + ": need version 1, flags 0");
    }
    int length = Byte.toUnsignedInt(bytes[6]) << 8 | Byte.toUnsignedInt(bytes[7]);
    if (length > SIZE_BYTES - FIXED_SIZE_BYTES) {
      throw malformed(file, "header of " + length + " bytes does not fit");
    }
    for (int i = FIXED_SIZE_BYTES + length; i < SIZE_BYTES; i++) {
      if (bytes[i] != 0) {
        throw malformed(file, "padding is not zero");
      }
    }
    Matcher header = HEADER.matcher(new String(bytes, FIXED_SIZE_BYTES, length, StandardCharsets.ISO_8859_1));
    if (!header.matches()) {
      throw malformed(file, "header is not the canonical JSON it must be");
    }
    String fileId = header.group(2);
    if (!Base64.getEncoder().encodeToString(Base64.getDecoder().decode(fileId)).equals(fileId)) {
      throw malformed(file, "file id is not canonical base64");
    }
    long keyVersion = Long.parseLong(header.group(3));
    if (keyVersion > Integer.MAX_VALUE) {
      throw malformed(file, "key version " + keyVersion + " is too large");
    }
    byte[] wrapped = Base64.getDecoder().decode(header.group(4));
    return new Preamble(bytes, header.group(1), fileId, (int) keyVersion, wrapped);
  }

  private static IntegrityException malformed(String file, String detail) {
    return new IntegrityException("file-malformed", file, detail);
  }

  /** A preamble for a new file: {@code fileKey} (32 bytes) wrapped under the dataset key with a fresh nonce. */
  static Preamble create(DatasetKey key, byte[] fileKey, SecureRandom random) {
    byte[] id = new byte[16];
    random.nextBytes(id);
    return create(key, fileKey, random, Base64.getEncoder().encodeToString(id));
  }

  /** As above, with a file id of {@link FileIds}. */
  static Preamble create(DatasetKey key, byte[] fileKey, SecureRandom random, String fileId) {
    byte[] nonce = new byte[NONCE_SIZE_BYTES];
    random.nextBytes(nonce);
    byte[] sealed;
    try {
      sealed = gcm(Cipher.ENCRYPT_MODE, key, fileId, nonce, fileKey, 0, fileKey.length);
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException("this Java has no AES-GCM", e);
    }
    byte[] wrapped = Arrays.copyOf(nonce, nonce.length + sealed.length);
    System.arraycopy(sealed, 0, wrapped, nonce.length, sealed.length);
    byte[] header = ("{\"alg\":\"AES256-GCM-HKDF-64K\",\"dataset\":\"" + key.dataset() + "\",\"file_id\":\"" + fileId
        + "\",\"kek\":" + key.version() + ",\"wrapped_dek\":\"" + Base64.getEncoder().encodeToString(wrapped) + "\"}")
        .getBytes(StandardCharsets.US_ASCII);
    byte[] bytes = Arrays.copyOf(FIXED, SIZE_BYTES);
    bytes[6] = (byte) (header.length >>> 8);
    bytes[7] = (byte) header.length;
    System.arraycopy(header, 0, bytes, FIXED_SIZE_BYTES, header.length);
    return new Preamble(bytes, key.dataset(), fileId, key.version(), wrapped);
  }

  /** The file key. @throws IntegrityException {@code file-tampered} if anything about key or header differs */
  byte[] unwrap(DatasetKey key, String file) throws IntegrityException {
    byte[] nonce = Arrays.copyOf(wrappedKey, NONCE_SIZE_BYTES);
    int size = wrappedKey.length - NONCE_SIZE_BYTES;
    try {
      return gcm(Cipher.DECRYPT_MODE, key, fileId, nonce, wrappedKey, NONCE_SIZE_BYTES, size);
    } catch (GeneralSecurityException e) {
      throw new IntegrityException("file-tampered", file, "the wrapped file key in its header does not open", e);
    }
  }

  private static byte[] gcm(int mode, DatasetKey key, String fileId, byte[] nonce, byte[] in, int offset, int size)
      throws GeneralSecurityException {
    Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
    cipher.init(mode, new SecretKeySpec(key.key(), "AES"), new GCMParameterSpec(128, nonce));
    String context = "casemate:dek:v1:" + key.dataset() + ":" + key.version() + ":" + fileId;
    cipher.updateAAD(context.getBytes(StandardCharsets.UTF_8));
    return cipher.doFinal(in, offset, size);
  }

  byte[] bytes() {
    return bytes;
  }

  String dataset() {
    return dataset;
  }

  String fileId() {
    return fileId;
  }

  int keyVersion() {
    return keyVersion;
  }
}
