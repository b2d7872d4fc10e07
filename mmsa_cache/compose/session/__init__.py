"""What one command works on: data, encoders and features, each resolved once."""
