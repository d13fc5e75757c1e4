"""RA-TLS: certificates that carry evidence, verified before the first byte of data, bound to the connection itself."""
