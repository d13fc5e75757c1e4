"""Challenges, grants, release decisions, job certificates, audit log: pure decisions; HTTP and storage at the edge."""
