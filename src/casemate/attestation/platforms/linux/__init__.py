"""Attesters of real machines: Linux and Gramine show quotes, registers and logs as plain files."""
