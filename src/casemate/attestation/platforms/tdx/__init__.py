"""Intel TDX: quotes of trust domains (versions 4 and 5)."""
