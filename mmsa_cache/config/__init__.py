"""The settings of a command."""
