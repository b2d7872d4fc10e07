"""What Python users call; ``import mmsa_cache as mmsa`` has its names."""

import warnings

# In a notebook, libraries below miss a widget for progress bars that they are never asked to show.
warnings.filterwarnings("ignore", message="IProgress not found")
