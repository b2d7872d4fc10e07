"""Inputs of the encoders: decoded pictures, augmented texts and pictures."""
