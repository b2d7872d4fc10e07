"""Stage one: reads, checks, encodes and stores rows."""
