"""The work of each command: data, encoders, features and models put together."""
