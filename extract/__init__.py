"""Stage one: frozen encoders run once over the pairs and their augmented variants."""
