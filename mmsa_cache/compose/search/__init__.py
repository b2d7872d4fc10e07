"""Searches for settings, and the studies that hold them."""
