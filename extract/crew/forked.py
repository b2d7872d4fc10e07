"""Imported once by the process that workers on the CPU are forked from."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import transformers  # noqa: F401

import extract.encoders.image
import extract.encoders.text
import extract.inputs.augment  # noqa: F401
