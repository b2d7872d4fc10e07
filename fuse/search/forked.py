"""Imported once by the process that workers on the CPU are forked from.

Several threads in each of several processes are far slower than one: the limits count when the
libraries are loaded.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # of pyarrow; forks want one thread

import sklearn.linear_model
import sklearn.svm  # noqa: F401  (with the one above, what baselines need)
import torch._dynamo  # noqa: F401  (what the first optimiser imports)

from fuse.training import trainer  # noqa: F401
