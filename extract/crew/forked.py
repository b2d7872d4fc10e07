"""Imported once by the process that workers on the CPU are forked from: it takes seconds."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # of pyarrow; forks want one thread

import extract.crew.worker
import extract.encoders.image
import extract.encoders.text
import extract.inputs.augment  # noqa: F401
from extract.encoders.compat import prepare_torchvision


def _libraries() -> None:
    prepare_torchvision()
    import timm  # noqa: F401
    import transformers

    for name in ("AutoConfig", "AutoModel", "AutoTokenizer"):
        getattr(transformers, name)


_libraries()
