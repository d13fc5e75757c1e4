"""Collateral at rest: fetched or imported, verified under pinned roots, kept in a directory until it expires."""
