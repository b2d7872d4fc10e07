"""Memory of CUDA graphs, which stays out of reach of everything else while one of them is there."""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE

_LATEST: dict[torch.device, tuple[_POOL_HANDLE, torch.cuda.CUDAGraph]] = {}
"""The pool of a device's graphs, and the graph that holds it until the next is captured."""
atexit.register(_LATEST.clear)


def graph_pool(device: torch.device) -> _POOL_HANDLE:
    """One pool for all graphs of a device that nothing is kept in and of which one runs at a time.

    Each with a pool of its own would leave it idle at its end until memory is short.
    """
    return _LATEST[device][0] if device in _LATEST else torch.cuda.graph_pool_handle()


def keep_graph(device: torch.device, pool: _POOL_HANDLE, graph: torch.cuda.CUDAGraph) -> None:
    """Keeps a graph for the sake of its pool, in the place of the one before."""
    _LATEST[device] = pool, graph


def has_graph(device: torch.device) -> bool:
    """Whether there was a graph of the device, and nothing freed its memory since."""
    return device in _LATEST


def free_memory(device: torch.device) -> None:
    """Gives back what torch keeps for later, that of graphs as well; does nothing on a CPU."""
    for of in [of for of in _LATEST if device in (of, torch.device(of.type))]:
        del _LATEST[of]
    if device.type == "cuda":
        torch.cuda.empty_cache()
