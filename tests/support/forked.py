"""Worker processes without another start of Python, which takes seconds."""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import warnings
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from mmsa_cache.native.processes import start_process as start_fresh


def start_forked(
    target: Callable[..., None], arguments: tuple[Any, ...], device: str, preload: str
) -> BaseProcess:
    """Starts a worker process as `start_fresh` does, which it leaves those of a GPU to."""
    if device != "cpu":
        return start_fresh(target, arguments, device, preload)

    def serve() -> None:
        import torch

        torch.set_num_threads(1)  # those of this process are not there
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a command has one of its own
        target(*arguments)

    importlib.import_module(preload)  # once, and in no worker
    worker = multiprocessing.get_context("fork").Process(target=serve, daemon=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of threads, of which none works here
        worker.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return worker
