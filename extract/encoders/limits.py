"""Sizes of a model that somebody else's configuration asks for, bounded before memory is taken."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmsa_cache.errors import ModelError
from mmsa_cache.store.fingerprint import Fields

MAX_RANDOM = 2_400_000_000
"""Bytes of a model of random weights, 600 million numbers of 4 bytes; one that is loaded may have
what its weights file pays for."""
MAX_TENSOR = 2 << 30
"""Bytes of any one tensor on the way of one picture."""
MAX_SIDE = 2048
"""Pixels of a side of a model's square input."""
_MAX_NUMBER = 1 << 16
"""Among the arguments of an image model."""
_MAX_TENSORS = 10_000


class AllocationLimit(TorchDispatchMode):
    """Ends what takes more than stated, on this thread. For the ``meta`` device, where nothing is
    allocated: a model is built there first.

    Args:
        name: The model, for errors.
        largest: Bytes of any one tensor.
        total: Bytes of all that are made from nothing, as parameters are; None: no limit.

    Raises:
        ModelError: It takes more.
    """

    def __init__(self, name: str, largest: int, total: int | None = None) -> None:
        super().__init__()
        self._name, self._largest, self._total = name, largest, total
        self._bytes = self._tensors = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        kwargs = kwargs or {}
        from_nothing = not any(isinstance(leaf, Tensor) for leaf in tree_leaves(args))
        if from_nothing and str(kwargs.get("device", "meta")) != "meta":
            self._count(func(*args, **kwargs | {"device": "meta"}), True)  # timm asks for the CPU
        made = func(*args, **kwargs)
        self._count(made, from_nothing)
        return made

    def _count(self, made: object, from_nothing: bool) -> None:
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                size = leaf.numel() * leaf.element_size()
                self._check(size, self._largest)
                self._bytes += size * from_nothing
                self._tensors += from_nothing
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


def check_side(side: int, name: str) -> int:
    """Refuses pictures that no image encoder takes.

    Raises:
        ModelError: The side is not between 1 and `MAX_SIDE` pixels.
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
"""How arguments of ``timm.create_model`` begin that name files or addresses to load, pickled ones
too, or that make something else of the model than an encoder."""


def check_arguments(kwargs: Fields) -> None:
    """Lets arguments of timm through that are sizes and choices.

    Raises:
        ModelError: Others are among them.
    """
    for name, value in sorted(kwargs.items()):
        values = value if isinstance(value, list) else [value]
        if _FOREIGN_ARGUMENTS.match(name) or any(isinstance(item, dict) for item in values):
            raise ModelError(
                f"[image] kwargs may not hold {name}.",
                "Weights come from [image] weights alone, which takes safetensors.",
            )
        if any(isinstance(item, int | float) and not abs(item) <= _MAX_NUMBER for item in values):
            raise ModelError(
                f"[image] kwargs: {name} is {str(value)[:80]}, more than {_MAX_NUMBER}.",
                "Give the sizes of a model that there is.",
            )
