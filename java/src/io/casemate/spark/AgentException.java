package io.casemate.spark;

/** No agent, or one that does not speak the protocol: without it no file is opened, encrypted or not. */
final class AgentException extends CasemateException {
  private static final long serialVersionUID = 1L;

  AgentException(String detail, Throwable cause) {
    super("agent-unreachable", "", detail, cause);
  }
}
