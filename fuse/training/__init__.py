"""From a setting to trained, calibrated models."""
