package io.casemate.spark;

/** Stored bytes are not what was written and committed: a bad tag, a bad header, a file that is missing or foreign. */
final class IntegrityException extends CasemateException {
  private static final long serialVersionUID = 1L;

  IntegrityException(String code, String file, String detail) {
    super(code, file, detail, null);
  }

  IntegrityException(String code, String file, String detail, Throwable cause) {
    super(code, file, detail, cause);
  }
}
