"""Stage one: rows are read, checked, encoded and stored."""
