"""Prediction, evaluation and comparison with trained models."""
