"""Worker processes: how they are started, and how they end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, Protocol

_SECONDS_TO_END = 5.0
_FREEZE = "mmsa_cache.native.freeze_heap"
_STARTING = threading.Lock()
"""Held while a process is started: what is changed for that is the whole process's."""


class WorkerProcess(Protocol):
    """A worker that was started: a process, or what speaks for one elsewhere."""

    @property
    def exitcode(self) -> int | None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def is_alive(self) -> bool: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


@contextlib.contextmanager
def hide_main() -> Iterator[None]:
    """Processes that are started meanwhile do not run the caller's script.

    Python runs the file of ``__main__`` again in what it starts, to find what is defined there: a
    script without a guard would do all its work anew, and that of standard input is no file at all.
    Targets and arguments are therefore of modules.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def start_process(
    target: Callable[..., None], arguments: tuple[Any, ...], device: str, preload: str
) -> BaseProcess:
    """Starts a worker process that does not hear Ctrl-C: whoever started it does.

    On the CPU it is forked from a process that has imported everything once; an import may touch a
    GPU, which no fork survives.

    Args:
        target: Its main function, of a module.
        arguments: Of the function.
        device: Where it will compute.
        preload: Module that imports what it needs.
    """
    process: BaseProcess
    if device == "cpu" and can_fork():
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload([preload, _FREEZE])
        process = server.Process(target=target, args=arguments, daemon=True)
    else:
        spawn = multiprocessing.get_context("spawn")
        process = spawn.Process(target=target, args=arguments, daemon=True)
    with _STARTING, hide_main(), _as_parent(), _without_interrupts():
        process.start()
    return process


def can_fork() -> bool:
    """Whether workers on the CPU are forked, which takes some milliseconds each."""
    return "forkserver" in multiprocessing.get_all_start_methods()


def prepare_forks(preload: str) -> None:
    """Lets the process that workers are forked from begin its imports; waits for nothing."""
    from multiprocessing import forkserver

    with _STARTING, hide_main(), _without_interrupts():
        forkserver.set_forkserver_preload([preload, _FREEZE])
        forkserver.ensure_running()


@contextlib.contextmanager
def _as_parent() -> Iterator[None]:
    """A worker may have workers of its own: `end_with_parent` ends them with it.

    Python forbids that to what it calls daemons, since it would leave them behind.
    """
    own: dict[str, Any] = getattr(multiprocessing.current_process(), "_config", {})
    daemon = own.pop("daemon", None)
    try:
        yield
    finally:
        if daemon is not None:
            own["daemon"] = daemon


@contextlib.contextmanager
def set_variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Processes that are started meanwhile have these variables in their environment; those that
    are forked from one of earlier have not."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that are started meanwhile do not hear Ctrl-C; on Windows, which knows no mask of
    signals, they do."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its start resets the mask, which a child inherits
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def end_with_parent() -> None:
    """Ends this process when the one that started it is gone, even within long work."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_process(process: WorkerProcess) -> None:
    """Ends a process for certain."""
    process.terminate()
    process.join(_SECONDS_TO_END)
    if process.is_alive():
        process.kill()
        process.join()


class Closable(Protocol):
    """A way to a worker."""

    def close(self) -> None: ...


def end_processes(workers: Sequence[tuple[WorkerProcess, Closable]]) -> None:
    """Ends processes side by side, and the pipes to them."""
    for process, pipe in workers:
        pipe.close()
        process.terminate()
    for process, _ in workers:
        end_process(process)


def send(pipe: Connection, message: Any) -> None:
    """Sends something to a process; that it has died is seen where its answer is waited for."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        pipe.send(message)


def exit_reason(process: WorkerProcess) -> str:
    """In words, once it has ended or is about to."""
    process.join(_SECONDS_TO_END)
    code = process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"ended with code {code}"
