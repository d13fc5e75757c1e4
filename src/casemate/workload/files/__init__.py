"""Zones for programs that know only plain paths: a FUSE mount inside the TEE, or copies in its private memory."""
