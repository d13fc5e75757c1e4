package io.casemate.spark;

import java.security.GeneralSecurityException;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** HKDF-SHA256 (RFC 5869) for keys of 32 bytes, which one block of its expansion gives, and HMAC-SHA256. */
final class Hkdf {
  private static final int HASH_SIZE_BYTES = 32;

  private Hkdf() {}

  static byte[] derive(byte[] key, byte[] salt, byte[] info) {
    byte[] pseudorandom = hmac(salt.length == 0 ? new byte[HASH_SIZE_BYTES] : salt, key);
    return hmac(pseudorandom, info, new byte[] {1});
  }

  static byte[] hmac(byte[] key, byte[]... message) {
    try {
      Mac mac = Mac.getInstance("HmacSHA256");
      mac.init(new SecretKeySpec(key, "HmacSHA256"));
      for (byte[] part : message) {
        mac.update(part);
      }
      return mac.doFinal();
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException("this Java has no HMAC-SHA256", e);
    }
  }
}
