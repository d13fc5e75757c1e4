"""From evidence to attestation results (RFC 9334): verifiers, appraisal policies, tokens."""
