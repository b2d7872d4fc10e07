"""Repeats a step; on a CUDA device as a graph, whose launch costs the host next to nothing.

The step has no arguments and returns nothing. It reads and writes tensors that stay where they
are, selects its inputs by a counter on the device, and never waits for the device. A graph records
the step's own kernels, so it computes the same.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Hashable, Iterator
from functools import cache

import torch

from mmsa_cache.native.graph_memory import graph_pool, has_graph, keep_graph

PLAIN_STEPS = 3
"""Steps before the first capture of a process, which set up libraries and their workspaces."""
STEPS_A_GRAPH = 1
"""Steps of one launch."""


class StepRepeater:
    """Repeats a step.

    Args:
        device: Device of the step; steps are captured on a CUDA device only.

    Attributes:
        captures: Whether steps after the first few are launched as a graph.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._plain = 0 if has_graph(device) else PLAIN_STEPS
        self._seen: set[Hashable] = set()
        self._graphs: dict[tuple[Hashable, int], torch.cuda.CUDAGraph] = {}
        self.captures = device.type == "cuda"

    def run(self, step: Callable[[], None], times: int, kind: Hashable = None) -> None:
        """Runs a step several times.

        Args:
            step: The step; the same in all calls with this kind.
            times: How often.
            kind: Each kind of step has graphs of its own.
        """
        if self.captures:
            # The first step of each kind sets up what only this kind needs.
            plain = min(times, max(self._plain, kind not in self._seen))
            self._plain = max(0, self._plain - plain)
            times -= plain
            with _on_side_stream(self._device) if plain else contextlib.nullcontext():
                for _ in range(plain):
                    step()
            if plain:
                self._seen.add(kind)
        for size in (STEPS_A_GRAPH, 1):
            while self.captures and times >= size:
                graph = self._graphs.get((kind, size)) or self._capture(step, size, kind)
                if graph is not None:
                    graph.replay()
                    times -= size
        for _ in range(times):
            step()

    def _capture(
        self, step: Callable[[], None], size: int, kind: Hashable
    ) -> torch.cuda.CUDAGraph | None:
        """Records `size` steps without running them; None if that is not possible."""
        graph, pool = torch.cuda.CUDAGraph(), graph_pool(self._device)
        torch.cuda.synchronize(self._device)
        try:
            # Not `torch.cuda.graph`, which returns all cached memory to the driver.
            with _on_side_stream(self._device):
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    for _ in range(size):
                        step()
                finally:
                    graph.capture_end()
        except Exception as error:
            with contextlib.suppress(Exception):  # what a failed capture leaves behind
                torch._C._cuda_endAllocateToPool(self._device.index, pool)
            torch.cuda.synchronize(self._device)  # a device that is lost raises here
            self.captures = False
            cause = error.__context__ or error  # ending the capture fails after any other error
            reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
            warnings.warn(
                f"Training steps could not be captured as a CUDA graph and run one by one, which "
                f"is slower: {reason}",
                stacklevel=2,
            )
            return None
        self._graphs[kind, size] = graph
        keep_graph(self._device, pool, graph)
        return graph


@contextlib.contextmanager
def _on_side_stream(device: torch.device) -> Iterator[None]:
    """Queues work on the stream of captures, after that of the current stream and before more."""
    current, side = torch.cuda.current_stream(device), _side_stream(device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        yield
    current.wait_stream(side)


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all trainings: libraries keep a workspace a stream."""
    return torch.cuda.Stream(device)
