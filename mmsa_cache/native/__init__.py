"""Process-wide switches of the libraries and the system below us."""
