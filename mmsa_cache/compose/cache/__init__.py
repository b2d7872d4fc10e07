"""What stores hold."""
