"""A long random mixture of commands on one working folder: ``python -m tests.soak``."""
