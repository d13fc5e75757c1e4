"""Challenges, grants, release decisions, job certificates, audit log. Decisions are pure; HTTP and storage are the edge."""
