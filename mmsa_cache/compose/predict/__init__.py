"""Trained models at work: prediction, evaluation, comparison."""
