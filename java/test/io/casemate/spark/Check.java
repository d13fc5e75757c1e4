package io.casemate.spark;

import java.util.Arrays;
import java.util.Objects;

/** Runs tests by name, prints a line for each, and keeps the count of what failed. */
final class Check {
  /** A test; whatever it throws is a failure. */
  interface Body {
    void run() throws Throwable;
  }

  private static int failed;

  private Check() {}

  static void test(String name, Body body) {
    try {
      body.run();
      System.out.println("ok " + name);
    } catch (Throwable e) {
      failed++;
      System.out.println("FAIL " + name + ": " + e.toString().replace('\n', ' '));
      e.printStackTrace();
    }
  }

  static void exit() {
    System.out.flush();
    Runtime.getRuntime().halt(failed == 0 ? 0 : 1);
  }

  static void that(boolean holds, String what) {
    if (!holds) {
      throw new AssertionError(what);
    }
  }

  static void same(Object expected, Object got) {
    that(Objects.equals(expected, got), "expected " + expected + ", got " + got);
  }

  static void same(byte[] expected, byte[] got) {
    that(Arrays.equals(expected, got), "bytes differ: expected " + expected.length + ", got " + got.length
        + ", first difference at " + Arrays.mismatch(expected, got));
  }

  /** What {@code body} throws, when it is one of ours or Hadoop's way to say no. */
  static Throwable refused(Body body) throws Throwable {
    try {
      body.run();
    } catch (UnsupportedOperationException | CasemateException e) {
      return e;
    } catch (java.util.concurrent.ExecutionException | java.io.UncheckedIOException e) {
      if (e.getCause() instanceof CasemateException) {
        return e.getCause();
      }
      throw e;
    } catch (org.apache.hadoop.security.AccessControlException e) {
      that(e.getMessage().contains("zone-access-denied"), e.toString());
      return e;
    }
    throw new AssertionError("was not refused");
  }

  static void refused(String code, Body body) throws Throwable {
    Throwable refusal = refused(body);
    that(refusal.getMessage().startsWith(code + ": "), "expected " + code + ", got " + refusal);
  }
}
