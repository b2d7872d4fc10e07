"""Compilation of a model's repeated blocks: of blocks that are alike, one is compiled."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
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
"""torch's compiler. Tests pass others, such as ``eager``, which compile nothing."""
_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable that names the folder of compiled code. torch's default lies in the system's
temporary folder, where any user may have put code to be loaded."""
_DEFAULT_PREFIX = "torchinductor_"
"""Prefix of the default's name; torch sets the variable to it when its compiler is imported."""
_MAX_GRAPHS = 64
"""Graphs that torch may build of one block's code: one for each stage, shifted or not."""
_LISTS = (nn.ModuleList, nn.Sequential)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that a model repeats: two or more in a list, all of one class, with submodules.

    Of nested lists, such as the stages of a hierarchical model, the innermost count.
    """
    classes = {cls for module in model.modules() for cls in _repeated_class(module)}
    nested = {
        cls: classes & {type(module) for module in block.modules() if module is not block}
        for block in model.modules()
        if (cls := type(block)) in classes
    }
    return [module for module in model.modules() if nested.get(type(module)) == set()]


def _repeated_class(module: nn.Module) -> set[type[nn.Module]]:
    """The class of the blocks in a list; empty where it is no list of equal blocks."""
    children = list(module.children()) if isinstance(module, _LISTS) else []
    classes = {type(child) for child in children}
    if len(children) < 2 or len(classes) != 1 or classes & {*_LISTS}:
        return set()
    is_operation = next(children[0].children(), None) is None
    return set() if is_operation else classes


def compile_blocks(
    encoder: Encoder, rows: int, device: torch.device, backend: str = INDUCTOR
) -> CompiledBlocks | None:
    """Compiles the repeated blocks of an encoder's model. The first batches then take minutes.

    Args:
        encoder: Its model lies on the device.
        rows: Rows a forward pass.
        device: Where it runs.
        backend: Name of torch's compiler backend.

    Returns:
        The compiled blocks; None for an encoder whose model repeats no blocks.
    """
    if not isinstance(encoder, TextEncoder | ImageEncoder):
        return None
    model = encoder.tower.to(device)
    if not isinstance(model, nn.Module) or not repeated_blocks(model):
        say(f"{encoder.label}: it repeats no blocks that could be compiled.")
        return None
    return CompiledBlocks(model, rows if encoder.equal_inputs else None, encoder.label, backend)


class CompiledBlocks:
    """Runs the repeated blocks of a frozen model compiled.

    One thread at a time may run it, as `launching` ensures on a GPU: where two look for the graph
    of an input at once, torch sometimes misses it and compiles it again.

    Where a block cannot be compiled, for example without a C compiler, all blocks run as they are,
    and a line says so once.

    Args:
        model: The ``forward`` of its blocks is replaced.
        rows: Batches of so many rows run compiled, others as they are: nothing is compiled for the
            last batches of windows. None: batches of all shapes run by code compiled for any shape.
        label: The model, for messages.
        backend: Name of torch's compiler backend.

    Attributes:
        count: Number of blocks.
        rows: As given; halved with the batches where one did not fit into memory.
        works: False once a block could not be compiled.
    """

    def __init__(
        self, model: nn.Module, rows: int | None, label: str, backend: str = INDUCTOR
    ) -> None:
        blocks = repeated_blocks(model)
        self.count, self.rows, self.works = len(blocks), rows, True
        self._label = label
        if backend == INDUCTOR and not _use_private_folder():
            self._give_up("there is no folder for it that this user alone can write to")
            return
        for block in blocks:
            _remove_drop_paths(block)
            eager = block.forward
            # Not `Module.compile`: hooks, by which transformers reads inner layers, stay outside.
            compiled = torch.compile(eager, backend=backend, dynamic=rows is None)
            block.forward = self._compiled_or_eager(eager, compiled)

    def _compiled_or_eager(
        self, eager: Callable[..., Any], compiled: Callable[..., Any]
    ) -> Callable[..., Any]:
        """A ``forward`` that runs compiled where it can and eagerly elsewhere."""
        from torch import _dynamo  # takes a second to import

        compiler_error = _dynamo.exc.TorchDynamoException

        @functools.wraps(eager)
        def forward(*args: Any, **kwargs: Any) -> Any:
            rows = _count_rows(args, kwargs)
            if not self.works or not (rows > 1 if self.rows is None else rows == self.rows):
                return eager(*args, **kwargs)
            if _dynamo.config.recompile_limit < _MAX_GRAPHS:  # each thread has its own limit
                _dynamo.config.recompile_limit = _MAX_GRAPHS
            try:
                with threads(1):  # torch compiles anew for each number of threads
                    return compiled(*args, **kwargs)
            except Exception as error:  # compilers raise many kinds
                if is_device_error(error) and not isinstance(error, compiler_error):
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


def _remove_drop_paths(block: nn.Module) -> None:
    """Removes modules that drop paths at random, which a frozen model never does.

    Each block has its own probability, for which torch would compile it anew.
    """
    for module in list(block.modules()):
        for name, child in module.named_children():
            if "Drop" in type(child).__name__ and hasattr(child, "drop_prob"):
                setattr(module, name, nn.Identity())


def _count_rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Rows of a block's input: the first axis of the first tensor; 0 where there is none."""
    tensors = (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
    return next((len(tensor) for tensor in tensors if tensor.ndim), 0)


def _use_private_folder() -> bool:
    """Keeps compiled code where other users cannot write; False where there is no such folder."""
    current = os.environ.get(_FOLDER)
    default = str(Path(tempfile.gettempdir(), _DEFAULT_PREFIX))
    if current is None or current.startswith(default):
        folder = private_folder("compiled")
        if folder is None:
            return False
        os.environ[_FOLDER] = str(folder)
    return True
