"""Shared parts of the HTML pages: shell, escaping, thumbnails."""
