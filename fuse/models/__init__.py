"""Modules of the stage-two models, built from flat arguments."""
