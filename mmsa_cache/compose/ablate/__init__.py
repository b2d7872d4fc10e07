"""Ablations: parts left out, each trained alike."""
