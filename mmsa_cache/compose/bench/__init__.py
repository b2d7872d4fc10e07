"""Measurements: ways that take turns on the user's own data and encoders."""
