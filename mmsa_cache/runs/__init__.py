"""Run directories and where runs are recorded."""
