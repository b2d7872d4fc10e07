"""Data, encoders and features of one command, each resolved once."""
