"""Rows read and prepared for the model, by threads or by processes."""
