"""A worker of a search on a machine of a Ray cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import platform
import threading
from multiprocessing.connection import Connection

from mmsa_cache.version import __version__

from .messages import Failure
from .worker import serve


class SearchWorker:
    """An actor that runs `serve` in a thread, at a pipe within its process.

    Args:
        device: See `serve`; ``cuda:0`` is the GPU that Ray gave to the process.
        version: Version of mmsa where the search runs.
    """

    def __init__(self, device: str, version: str) -> None:
        self._device, self._version = device, version
        self._pipe: Connection | None = None

    def exchange(self, message: bytes) -> bytes:
        """Sends a pickled message to the worker; returns its pickled reply."""
        if self._version != __version__:
            other = f"{platform.node()} has mmsa {__version__}, this machine {self._version}"
            return pickle.dumps(Failure(other))
        if self._pipe is None:
            self._pipe, theirs = multiprocessing.Pipe()
            threading.Thread(target=_serve, args=(theirs, self._device), daemon=True).start()
        try:
            self._pipe.send_bytes(message)
            return self._pipe.recv_bytes()
        except (EOFError, OSError):
            os._exit(1)  # the worker lost its device: only a new process gets it back


def _serve(pipe: Connection, device: str) -> None:
    with contextlib.closing(pipe):
        serve(pipe, device)
