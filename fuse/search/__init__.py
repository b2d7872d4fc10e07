"""Hyperparameter search over a study's space."""
