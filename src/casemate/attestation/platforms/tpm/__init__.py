"""TPM 2.0 quotes in plain Python: bare TPMs, Google Cloud vTPMs, and Azure vTPMs bound to SEV-SNP or TDX."""
