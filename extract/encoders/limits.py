"""Limits on the sizes that a foreign configuration may ask for, checked before allocation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmsa_cache.errors import ModelError
from mmsa_cache.store.fingerprint import Fields

MAX_RANDOM = 2_400_000_000
"""Bytes of a model with random weights: 600 million numbers of 4 bytes."""
_MODEL_OVERHEAD = 64 << 20
"""Bytes that a loaded model may take beside twice the size of its weights."""
MAX_TENSOR = 2 << 30
"""Bytes of any one tensor in the forward pass of one picture."""
MAX_SIDE = 2048
"""Pixels of a side of a model's square input."""
_MAX_ARGUMENT = 1 << 16
"""Largest number among the arguments of an image model."""
_MAX_TENSORS = 10_000


class AllocationLimit(TorchDispatchMode):
    """Limits the tensors that are created inside, on this thread and the ``meta`` device.

    A model is built there first, where nothing is allocated.

    Args:
        name: The model, for errors.
        largest: Bytes of any one tensor.
        total: Bytes of all tensors that are created without an input, as parameters are; None: no
            limit.

    Raises:
        ModelError: A limit is exceeded.
    """

    def __init__(self, name: str, largest: int, total: int | None = None) -> None:
        super().__init__()
        self._name, self._largest, self._total = name, largest, total
        self._bytes = self._tensors = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        kwargs = kwargs or {}
        creates = not any(isinstance(leaf, Tensor) for leaf in tree_leaves(args))
        if creates and str(kwargs.get("device", "meta")) != "meta":
            self._count(func(*args, **kwargs | {"device": "meta"}), True)  # timm asks for the CPU
        result = func(*args, **kwargs)
        self._count(result, creates)
        return result

    def _count(self, result: object, creates: bool) -> None:
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                size = leaf.numel() * leaf.element_size()
                self._check(size, self._largest)
                self._bytes += size * creates
                self._tensors += creates
        if self._total is not None:
            self._check(self._bytes, self._total)
        if self._tensors > _MAX_TENSORS:
            raise ModelError(
                f"{self._name} has more than {_MAX_TENSORS} tensors.", "Give a smaller model."
            )

    def _check(self, size: int, limit: int) -> None:
        if size > limit:
            raise ModelError(
                f"{self._name} takes more memory than it may: {size / 1e9:.1f} GB, "
                f"the limit is {limit / 1e9:.2g} GB.",
                "Check its sizes (vocabulary, layers, input) and that its weights are complete.",
            )


def model_limit(weights: Mapping[str, Tensor] | None) -> int:
    """Bytes that a model may take: twice its weights, or a fixed number where they are random."""
    if weights is None:
        return MAX_RANDOM
    return 8 * sum(tensor.numel() for tensor in weights.values()) + _MODEL_OVERHEAD


def check_side(side: int, name: str) -> int:
    """Checks the side of an image encoder's input.

    Raises:
        ModelError: It is not between 1 and `MAX_SIDE` pixels.
    """
    if not 1 <= side <= MAX_SIDE:
        raise ModelError(
            f"{name}: the side of its input is {side} pixels, from 1 to {MAX_SIDE} are possible.",
            "Set size in [image].",
        )
    return side


_FOREIGN_ARGUMENTS = re.compile(
    r"(pretrained|checkpoint|features?_|cache_|model_cfg|kwargs_filter|pruned|device|dtype"
    r"|scriptable|exportable|no_jit)"
)
"""Prefixes of arguments of ``timm.create_model`` that load files or addresses, pickled ones too, or
that make the model something else than an encoder."""


def check_arguments(kwargs: Fields) -> None:
    """Checks that arguments of timm are sizes and choices only.

    Raises:
        ModelError: They are not.
    """
    for name, value in sorted(kwargs.items()):
        values = value if isinstance(value, list) else [value]
        if _FOREIGN_ARGUMENTS.match(name) or any(isinstance(item, dict) for item in values):
            raise ModelError(
                f"[image] kwargs may not hold {name}.",
                "Weights come from [image] weights alone, which takes safetensors.",
            )
        if any(isinstance(item, int | float) and not abs(item) <= _MAX_ARGUMENT for item in values):
            raise ModelError(
                f"[image] kwargs: {name} is {str(value)[:80]}, more than {_MAX_ARGUMENT}.",
                "Give the sizes of an existing model.",
            )
