"""Stores, exports and data sets at the Hugging Face hub and in object stores."""
