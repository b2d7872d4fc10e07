"""Cached features as tensors."""
