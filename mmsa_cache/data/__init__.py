"""Data folders: layouts, pairs, duplicates, splits."""
