"""Workload manifest, the entry point of everything inside a TEE, and its local agent."""
