"""Intel SGX: quotes of enclaves (version 3)."""
