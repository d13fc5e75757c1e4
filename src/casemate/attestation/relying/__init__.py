"""For relying parties (RFC 9334 section 4.1): any service can demand attestation tokens, any client can bring one."""
