"""What Python users call; ``import mmsa_cache as mmsa`` has its names."""
