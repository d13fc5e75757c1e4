package io.casemate.spark;

import java.io.IOException;

/** What Casemate refuses. The message begins with a stable code and names the file. */
abstract class CasemateException extends IOException {
  private static final long serialVersionUID = 1L;

  private final String code;

  CasemateException(String code, String subject, String detail, Throwable cause) {
    super(code + ": " + (subject.isEmpty() ? "" : subject + ": ") + detail, cause);
    this.code = code;
  }

  /** The code that the API, the CLI, the audit log and the documentation share. */
  final String code() {
    return code;
  }
}
