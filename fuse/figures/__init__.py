"""Figures of predictions and their bootstrap intervals."""
