"""Imports slow libraries in the process that all steps are forked from."""

from extract.encoders.compat import prepare_torchvision

prepare_torchvision()

import timm  # noqa: E402, F401  (after the two builds of torch are kept apart)
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertModel  # noqa: E402, F401
