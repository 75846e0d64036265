"""Edges of the granularity graph: one file an operation, found by entry point (see registry)."""
