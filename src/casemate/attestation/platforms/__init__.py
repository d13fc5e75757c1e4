"""One package per platform, each with a verifier and, where software can collect it, an attester."""
