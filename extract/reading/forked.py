"""Imported once by the process that readers are forked from: it takes seconds."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # of pyarrow; forks want one thread

import sklearn.feature_extraction.text  # noqa: F401

import extract.encoders.lexicon
import extract.encoders.ngrams
import extract.reading.process
import extract.reading.readers  # noqa: F401
from extract.encoders.compat import prepare_torchvision


def _tokenizers() -> None:
    prepare_torchvision()
    import transformers

    for name in ("AutoTokenizer", "PreTrainedTokenizerFast"):
        getattr(transformers, name)


_tokenizers()
