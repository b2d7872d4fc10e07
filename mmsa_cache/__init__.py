"""What both stages share: samples, splits, settings, the feature cache and the command line."""

__version__ = "0.1.0"
