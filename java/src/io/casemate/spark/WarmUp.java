package io.casemate.spark;

import java.security.GeneralSecurityException;
import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;

/**
 * Has the JVM compile AES-GCM before the first file is read. Uncompiled it does 50 MB/s where it could do thousands, and a
 * busy machine stays so for gigabytes. Spark's Java options lower the thresholds of just these methods, so that some
 * megabytes of nothing, on a thread of the lowest priority, are enough.
 */
final class WarmUp implements Runnable {
  private static final int SIZE_BYTES = 4096;
  private static final int MOST_ROUNDS = 1500;
  private static final int FAST_NANOS = 10_000; // for one round; compiled it takes 3 microseconds
  private static final int FAST_ROUNDS = 20;

  static void start() {
    Thread thread = new Thread(new WarmUp(), "casemate-warm-up");
    thread.setDaemon(true);
    thread.setPriority(Thread.MIN_PRIORITY);
    thread.start();
  }

  /** A key and nonces that protect nothing: all that is encrypted here is zeros. */
  @Override
  public void run() {
    try {
      Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
      SecretKeySpec key = new SecretKeySpec(new byte[32], "AES");
      byte[] nonce = new byte[12];
      byte[] sealed = new byte[SIZE_BYTES + SegmentCipher.TAG_SIZE_BYTES];
      byte[] plain = new byte[sealed.length];
      int fast = 0;
      for (int round = 0; round < MOST_ROUNDS && fast < FAST_ROUNDS; round++) {
        long start = System.nanoTime();
        nonce[0] = (byte) round;
        nonce[1] = (byte) (round >> 8);
        cipher.init(Cipher.ENCRYPT_MODE, key, new GCMParameterSpec(8 * SegmentCipher.TAG_SIZE_BYTES, nonce));
        cipher.doFinal(plain, 0, SIZE_BYTES, sealed, 0);
        cipher.init(Cipher.DECRYPT_MODE, key, new GCMParameterSpec(8 * SegmentCipher.TAG_SIZE_BYTES, nonce));
        cipher.doFinal(sealed, 0, sealed.length, plain, 0);
        fast = System.nanoTime() - start < FAST_NANOS ? fast + 1 : 0;
      }
    } catch (GeneralSecurityException e) {
      // whoever needs the cipher will be told
    }
  }
}
