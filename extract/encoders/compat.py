"""Lets a CUDA build of torchvision be imported beside a CPU build of torch.

torchvision's wheels on the package index are CUDA builds. Beside a CPU torch their C++ library does
not load, and ``import torchvision`` (hence timm and many transformers models) fails with "operator
torchvision::nms does not exist": it attaches Python code to operators that the library would have
declared. mmsa uses none of these operators, so it is enough to declare them.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@functools.cache
def prepare_torchvision() -> torch.library.Library | None:
    """Makes ``import torchvision`` work. Call it before importing timm or transformers.

    Returns:
        The library that holds the declarations, which live as long as it does; None where
        torchvision's own library loads, or torchvision is not installed.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    for path in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(path))
        except (OSError, RuntimeError):
            continue
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    return library
