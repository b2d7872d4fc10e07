"""Searches for settings, and their studies."""
