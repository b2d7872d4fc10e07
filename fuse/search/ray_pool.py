"""Workers of a search on a Ray cluster: each is an actor, and a thread here speaks for it.

The pool meets what it meets with processes, a pipe; whatever is sent over it, the thread passes on
and answers with what the actor says. A worker says one thing for each that it is told.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import platform
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.copies import CopiedSource, node_folder
from mmsa_cache.features.source import BankSource
from mmsa_cache.untrusted import read_part
from mmsa_cache.version import __version__

from .pool import A_GPU, Death
from .worker import Failure, serve


class Actor:
    """A worker: `serve` in a thread of the process, at a pipe within it.

    Args:
        device: As `serve` takes it; a GPU is the one that Ray gave to the process, ``cuda:0``.
        version: Of mmsa, where the search runs.
    """

    def __init__(self, device: str, version: str) -> None:
        self._device, self._version = device, version
        self._pipe: Connection | None = None

    def exchange(self, message: Any) -> Any:
        """Tells the worker something; returns what it says to that."""
        if self._version != __version__:
            return Failure(
                f"{platform.node()} has mmsa {__version__}, this machine {self._version}"
            )
        if self._pipe is None:
            self._pipe, theirs = multiprocessing.Pipe()
            threading.Thread(target=_serve, args=(theirs, self._device), daemon=True).start()
        try:
            self._pipe.send(message)
            return self._pipe.recv()
        except (EOFError, OSError):
            os._exit(1)  # a worker that lost its device: a process that begins anew has it again


def _serve(pipe: Connection, device: str) -> None:
    with contextlib.closing(pipe):
        serve(pipe, device)


class RayWorker(threading.Thread):
    """Speaks for an actor: what comes over the pipe is told to it, and its answers go back.

    It is started as `pool.Start` says, on the cluster that this process is connected to.

    Args:
        pipe: The worker's end.
        device: See `Actor`.
    """

    exitcode = None

    def __init__(self, pipe: Connection, device: str) -> None:
        super().__init__(daemon=True)
        import ray

        needs = {"num_cpus": 1.0} | ({} if device == "cpu" else {"num_gpus": 1 / A_GPU})

        # Restarts and retries are the pool's, which counts them: Ray would run a trial that kills
        # its worker for ever.
        made = ray.remote(Actor).options(max_restarts=0, max_task_retries=0, **needs)
        self._pipe, self._actor = pipe, made.remote(device, __version__)
        self.start()

    def run(self) -> None:
        import ray

        with contextlib.closing(self._pipe), contextlib.suppress(EOFError, OSError):
            while True:
                message = self._pipe.recv()
                try:
                    said = ray.get(self._actor.exchange.remote(message))
                except ray.exceptions.RayError as error:
                    said = Death(_how_it_ended(error))
                self._pipe.send(said)
                if isinstance(said, Death):
                    return
        self.terminate()

    def terminate(self) -> None:
        """Ends the actor, also in the midst of a training."""
        import ray

        if ray.is_initialized():
            ray.kill(self._actor)

    kill = terminate


def _how_it_ended(error: Exception) -> str:
    """The part of Ray's message that tells one death from another."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


@dataclass(frozen=True, slots=True)
class RaySource:
    """Where an actor gets the features: from its machine's disk."""

    copied: CopiedSource
    node: str
    """The machine that has them, by Ray's name."""

    @classmethod
    def of(cls, source: BankSource) -> RaySource:
        """The source of actors, of one that opens in this process."""
        import ray

        return cls(CopiedSource.of(source), ray.get_runtime_context().get_node_id())

    def open(self, device: str) -> FeatureBank:
        """See `BankSource.open`; what the machine lacks is fetched first."""
        import ray

        if ray.get_runtime_context().get_node_id() == self.node:
            return self.copied.source.open(device)
        return self.copied.here(self._read, node_folder()).open(device)

    def _read(self, path: Path, offset: int, count: int) -> bytes:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(self.node, soft=False)
        reading = ray.remote(read_part).options(num_cpus=0, scheduling_strategy=there)
        found: bytes = ray.get(reading.remote(path, offset, count))
        return found
