"""Comparison of settings and of runs."""
