"""Casemate: unchanged data and AI programs on data that only an attested TEE can read."""

__version__ = "0.1.0"
