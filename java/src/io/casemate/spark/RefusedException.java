package io.casemate.spark;

/** The request was understood and is not allowed: a denied key, a path outside the zones, a write to a read zone. */
final class RefusedException extends CasemateException {
  private static final long serialVersionUID = 1L;

  RefusedException(String code, String subject, String detail) {
    super(code, subject, detail, null);
  }
}
