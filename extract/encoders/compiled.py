"""Blocks of a model compiled one by one: those that are alike are compiled once."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmsa_cache.console import say
from mmsa_cache.files.private import private_folder
from mmsa_cache.native.device import is_device_error, is_out_of_memory
from mmsa_cache.native.threads import threads

from .image import ImageEncoder
from .protocol import Encoder
from .text import TextEncoder

INDUCTOR = "inductor"
"""torch's compiler; others, as ``eager``, take the same way without compiling."""
_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable that names the folder of what was compiled; torch's default is a name below
the system's temporary folder, where any user may have put code to be loaded."""
_DEFAULT = "torchinductor_"
"""How that name begins; torch sets the variable to it when its compiler is imported."""
_VARIANTS = 64
"""Graphs that torch may build of one block's code: of each stage, shifted or not."""
_LISTS = (nn.ModuleList, nn.Sequential)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that a model repeats: two or more in a list, of one class with parts of its own.

    Of lists within lists, as the stages of a hierarchical model, the innermost count.
    """
    kinds = {kind for part in model.modules() for kind in _repeated(part)}
    inner = {
        kind: kinds & {type(part) for part in block.modules() if part is not block}
        for block in model.modules()
        if (kind := type(block)) in kinds
    }
    return [part for part in model.modules() if inner.get(type(part)) == set()]


def _repeated(part: nn.Module) -> Iterator[type[nn.Module]]:
    children = list(part.children()) if isinstance(part, _LISTS) else []
    kinds = {type(child) for child in children}
    if len(children) < 2 or len(kinds) != 1 or kinds & {*_LISTS}:
        return
    if any(True for _ in children[0].children()):  # else it is one operation
        yield from kinds


def compile_blocks(
    encoder: Encoder, rows: int, device: torch.device, backend: str = INDUCTOR
) -> CompiledBlocks | None:
    """Has an encoder run the blocks of its model compiled; the first batches take minutes.

    Args:
        encoder: Its model lies on the device.
        rows: Rows a forward pass.
        device: Where it runs.
        backend: Compiler, as torch calls it.

    Returns:
        What became of them; None for an encoder without a model of repeated blocks.
    """
    if not isinstance(encoder, TextEncoder | ImageEncoder):
        return None
    model = encoder.tower.to(device)
    if not isinstance(model, nn.Module) or not repeated_blocks(model):
        say(f"{encoder.label}: it repeats no blocks that could be compiled.")
        return None
    return CompiledBlocks(model, rows if encoder.equal_inputs else None, encoder.label, backend)


class CompiledBlocks:
    """Makes a frozen model run its repeated blocks compiled.

    One thread at a time may run it, as `launching` ensures on a GPU: where two look for the graph
    of an input at once, torch sometimes misses it and compiles it again.

    A block that cannot be compiled, as without a C compiler, ends that for all of them: the model
    runs as it was, which is said once.

    Args:
        model: Its blocks' ``forward`` are replaced.
        rows: Rows of the batches to compile for; batches of other sizes run as they are, so that
            nothing is compiled for the last ones of windows. None: batches of all shapes are run
            compiled, by code that takes any.
        label: The model, for people.
        backend: Compiler.

    Attributes:
        count: Blocks.
        rows: As given; halved where a batch did not fit into memory, as what is run at once is.
        works: False once something could not be compiled.
    """

    def __init__(
        self, model: nn.Module, rows: int | None, label: str, backend: str = INDUCTOR
    ) -> None:
        blocks = repeated_blocks(model)
        self.count, self.rows, self.works = len(blocks), rows, True
        self._label = label
        if backend == INDUCTOR and not _keeps_to_itself():
            self._give_up("there is no folder for it that this user alone can write to")
            return
        for block in blocks:
            _drop_paths_aside(block)
            eager = block.forward
            # Not `Module.compile`: hooks, by which transformers reads inner layers, stay outside.
            compiled = torch.compile(eager, backend=backend, dynamic=rows is None)
            block.forward = self._either(eager, compiled)

    def _either(
        self, eager: Callable[..., Any], compiled: Callable[..., Any]
    ) -> Callable[..., Any]:
        from torch import _dynamo  # takes a second to import

        compiling = _dynamo.exc.TorchDynamoException

        @functools.wraps(eager)
        def forward(*args: Any, **kwargs: Any) -> Any:
            rows = _rows(args, kwargs)
            if not self.works or not (rows > 1 if self.rows is None else rows == self.rows):
                return eager(*args, **kwargs)
            if _dynamo.config.recompile_limit < _VARIANTS:  # each thread has its own
                _dynamo.config.recompile_limit = _VARIANTS
            try:
                with threads(1):  # for each other count of the caller torch would compile anew
                    return compiled(*args, **kwargs)
            except Exception as error:  # compilers raise many kinds
                if is_device_error(error) and not isinstance(error, compiling):
                    if is_out_of_memory(error) and self.rows is not None:
                        self.rows = min(self.rows, (rows + 1) // 2)
                    raise
                self._give_up(" ".join(str(error).split()))
            return eager(*args, **kwargs)

        return forward

    def _give_up(self, reason: str) -> None:
        if self.works:
            self.works = False
            say(f"{self._label}: not compiled, it runs as it is: {reason[:300]}")


def _drop_paths_aside(block: nn.Module) -> None:
    """Puts nothing in the place of parts that leave paths out at random, which a frozen model does
    not: each block has a chance of its own, for which torch would compile it anew."""
    for part in list(block.modules()):
        for name, child in part.named_children():
            if "Drop" in type(child).__name__ and hasattr(child, "drop_prob"):
                setattr(part, name, nn.Identity())


def _rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Rows of a block's inputs: the first axis of the first tensor; 0 where there is none."""
    tensors = (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
    return next((len(tensor) for tensor in tensors if tensor.ndim), 0)


def _keeps_to_itself() -> bool:
    """Has what is compiled kept where other users cannot write; whether there is such a place."""
    given = os.environ.get(_FOLDER)
    default = str(Path(tempfile.gettempdir(), _DEFAULT))
    if given is None or given.startswith(default):
        folder = private_folder("compiled")
        if folder is None:
            return False
        os.environ[_FOLDER] = str(folder)
    return True
