"""Frozen encoders: one protocol, a file a family."""
