"""The broker over HTTP: the confidential-containers KBS protocol, and the administration API under /v1/."""
