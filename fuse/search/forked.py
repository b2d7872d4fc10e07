"""Imported once, by the process that workers on the CPU are forked from.

Limits each process to one thread, since several in each of several processes are far slower. The
libraries read these limits when they are loaded.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # of pyarrow; forks want one thread

import sklearn.linear_model
import sklearn.svm  # noqa: F401  (both for baselines)
import torch._dynamo  # noqa: F401  (imported by the first optimiser)

from fuse.training import trainer  # noqa: F401
