"""Benchmarks that measure both sides in one run and write JSON."""
