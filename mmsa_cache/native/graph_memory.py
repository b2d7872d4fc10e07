"""Memory pools of CUDA graphs, which nothing else can use while a graph exists."""

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
    """The shared pool of a device's graphs, which run one at a time and keep nothing in it.

    Pools of their own would stay allocated after each graph until memory is short.
    """
    return _LATEST[device][0] if device in _LATEST else torch.cuda.graph_pool_handle()


def keep_graph(device: torch.device, pool: _POOL_HANDLE, graph: torch.cuda.CUDAGraph) -> None:
    """Keeps a graph alive, and with it its pool, in place of the previous one."""
    _LATEST[device] = pool, graph


def has_graph(device: torch.device) -> bool:
    """Whether a graph of the device is kept alive."""
    return device in _LATEST


def free_memory(device: torch.device) -> None:
    """Frees torch's cached memory, also of graphs; does nothing on a CPU."""
    for key in [key for key in _LATEST if device in (key, torch.device(key.type))]:
        del _LATEST[key]
    if device.type == "cuda":
        torch.cuda.empty_cache()
