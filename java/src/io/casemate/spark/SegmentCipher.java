package io.casemate.spark;

import java.security.GeneralSecurityException;
import java.security.SecureRandom;
import javax.crypto.AEADBadTagException;
import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;

/**
 * Tink's AES256-GCM-HKDF streaming construction, segments of 65536 bytes: the body of an encrypted file.
 * Nonce of a segment: {@code prefix (7) | index u32 | 1 for the last, else 0}. Not thread-safe: one per stream.
 */
final class SegmentCipher {
  static final int SEGMENT_SIZE_BYTES = 65536;
  static final int TAG_SIZE_BYTES = 16;
  static final int HEADER_SIZE_BYTES = 40;
  /** Plaintext bytes of a segment; the first has {@link #HEADER_SIZE_BYTES} fewer. */
  static final int PLAINTEXT_SIZE_BYTES = SEGMENT_SIZE_BYTES - TAG_SIZE_BYTES;
  /** A file without any plaintext. */
  static final int SMALLEST_FILE_BYTES = Preamble.SIZE_BYTES + HEADER_SIZE_BYTES + TAG_SIZE_BYTES;

  private static final long MAX_BODY_BYTES = (1L << 32) * SEGMENT_SIZE_BYTES;
  private static final int SALT_SIZE_BYTES = 32;
  private static final int NONCE_PREFIX_SIZE_BYTES = 7;
  private static final int NONCE_SIZE_BYTES = 12;

  private final Cipher cipher;
  private final SecretKeySpec key;
  private final byte[] nonce = new byte[NONCE_SIZE_BYTES];

  private SegmentCipher(SecretKeySpec key, byte[] noncePrefix) {
    System.arraycopy(noncePrefix, 0, nonce, 0, NONCE_PREFIX_SIZE_BYTES);
    this.key = key;
    this.cipher = newCipher();
  }

  /** One for the same file, to decrypt on another thread. */
  SegmentCipher another() {
    return new SegmentCipher(key, nonce);
  }

  private static Cipher newCipher() {
    try {
      return Cipher.getInstance("AES/GCM/NoPadding");
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException("this Java has no AES-GCM", e);
    }
  }

  /** @throws IllegalArgumentException if {@code header} does not begin with its own length */
  SegmentCipher(byte[] fileKey, byte[] header, byte[] preamble) {
    if (header.length != HEADER_SIZE_BYTES || header[0] != HEADER_SIZE_BYTES) {
      throw new IllegalArgumentException("stream header does not begin with its length");
    }
    byte[] salt = new byte[SALT_SIZE_BYTES];
    System.arraycopy(header, 1, salt, 0, SALT_SIZE_BYTES);
    System.arraycopy(header, 1 + SALT_SIZE_BYTES, nonce, 0, NONCE_PREFIX_SIZE_BYTES);
    key = new SecretKeySpec(Hkdf.derive(fileKey, salt, preamble), "AES");
    cipher = newCipher();
  }

  /** A stream header with a fresh salt and nonce prefix. */
  static byte[] newHeader(SecureRandom random) {
    byte[] header = new byte[HEADER_SIZE_BYTES];
    random.nextBytes(header);
    header[0] = HEADER_SIZE_BYTES;
    return header;
  }

  /** Plaintext bytes in a file of {@code stored} bytes, preamble included; -1 when no plaintext gives that size. */
  static long plaintextSize(long stored) {
    long body = stored - Preamble.SIZE_BYTES;
    long rest = body % SEGMENT_SIZE_BYTES;
    if (stored < SMALLEST_FILE_BYTES || body > MAX_BODY_BYTES || rest > 0 && rest <= TAG_SIZE_BYTES) {
      return -1;
    }
    long full = body / SEGMENT_SIZE_BYTES * PLAINTEXT_SIZE_BYTES;
    return full + (rest > 0 ? rest - TAG_SIZE_BYTES : 0) - HEADER_SIZE_BYTES;
  }

  /** Stored bytes, preamble included, for {@code plaintext} bytes. */
  static long storedSize(long plaintext) {
    long rest = (plaintext + HEADER_SIZE_BYTES) % PLAINTEXT_SIZE_BYTES;
    long full = (plaintext + HEADER_SIZE_BYTES) / PLAINTEXT_SIZE_BYTES;
    return Preamble.SIZE_BYTES + full * SEGMENT_SIZE_BYTES + (rest > 0 ? rest + TAG_SIZE_BYTES : 0);
  }

  /** The segment that holds plaintext byte {@code position}. */
  static long segmentOf(long position) {
    return (position + HEADER_SIZE_BYTES) / PLAINTEXT_SIZE_BYTES;
  }

  /** The position of a segment's first plaintext byte. */
  static long plaintextStart(long index) {
    return index == 0 ? 0 : index * PLAINTEXT_SIZE_BYTES - HEADER_SIZE_BYTES;
  }

  /** Where a segment's ciphertext begins in the file. */
  static long storedStart(long index) {
    return Preamble.SIZE_BYTES + (index == 0 ? HEADER_SIZE_BYTES : index * SEGMENT_SIZE_BYTES);
  }

  /** The stored offset of a plaintext byte's ciphertext: for block locations. */
  static long storedPosition(long position) {
    long index = segmentOf(position);
    return storedStart(index) + position - plaintextStart(index);
  }

  /** Decrypts {@code size} bytes (tag included) into {@code size - 16}. */
  void decrypt(long index, boolean last, byte[] in, int inOffset, int size, byte[] out, int outOffset)
      throws AEADBadTagException {
    crypt(Cipher.DECRYPT_MODE, index, last, in, inOffset, size, out, outOffset);
  }

  /** Encrypts {@code size} bytes into {@code size + 16}. The caller never gives one index twice. */
  void encrypt(long index, boolean last, byte[] in, int inOffset, int size, byte[] out, int outOffset) {
    try {
      crypt(Cipher.ENCRYPT_MODE, index, last, in, inOffset, size, out, outOffset);
    } catch (AEADBadTagException e) {
      throw new IllegalStateException(e);
    }
  }

  private void crypt(
      int mode, long index, boolean last, byte[] in, int inOffset, int size, byte[] out, int outOffset)
      throws AEADBadTagException {
    nonce[7] = (byte) (index >>> 24);
    nonce[8] = (byte) (index >>> 16);
    nonce[9] = (byte) (index >>> 8);
    nonce[10] = (byte) index;
    nonce[11] = (byte) (last ? 1 : 0);
    try {
      cipher.init(mode, key, new GCMParameterSpec(8 * TAG_SIZE_BYTES, nonce));
      cipher.doFinal(in, inOffset, size, out, outOffset);
    } catch (AEADBadTagException e) {
      throw e;
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException("AES-GCM on segment " + index, e);
    }
  }
}
