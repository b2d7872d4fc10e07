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
    """A started worker: a process, or an object that represents a remote one."""

    @property
    def exitcode(self) -> int | None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def is_alive(self) -> bool: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


@contextlib.contextmanager
def hide_main() -> Iterator[None]:
    """Processes started inside the block do not run the caller's script.

    Python runs the file of ``__main__`` again in started processes: a script without a guard would
    repeat all its work, and a script from standard input has no file. Targets and arguments must
    therefore be defined in modules.
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
    """Starts a worker process that ignores Ctrl-C, which its parent handles.

    On the CPU it is forked from a server process with all imports done. For a GPU it is spawned: an
    import may initialise CUDA, which does not survive a fork.

    Args:
        target: Its main function, defined in a module.
        arguments: Arguments of the function.
        device: Device that it computes on.
        preload: Module with the imports.
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
    """Whether workers on the CPU are forked, which takes a few milliseconds each."""
    return "forkserver" in multiprocessing.get_all_start_methods()


def prepare_forks(preload: str) -> None:
    """Lets the process that workers are forked from begin its imports; waits for nothing."""
    from multiprocessing import forkserver

    with _STARTING, hide_main(), _without_interrupts():
        forkserver.set_forkserver_preload([preload, _FREEZE])
        forkserver.ensure_running()


@contextlib.contextmanager
def _as_parent() -> Iterator[None]:
    """Lets a daemon process start processes, which Python forbids.

    `end_with_parent` ends them with their parent.
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
    """Sets environment variables for processes started inside the block.

    Forked workers have the environment of their server process instead.
    """
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
    """Processes started inside the block ignore Ctrl-C, except on Windows."""
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
    """Ends this process as soon as its parent has ended."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_process(process: WorkerProcess) -> None:
    """Terminates a process; kills it if it does not end."""
    process.terminate()
    process.join(_SECONDS_TO_END)
    if process.is_alive():
        process.kill()
        process.join()


class Closable(Protocol):
    """A connection to a worker."""

    def close(self) -> None: ...


def end_processes(workers: Sequence[tuple[WorkerProcess, Closable]]) -> None:
    """Closes the pipes to processes and ends all of them in parallel."""
    for process, pipe in workers:
        pipe.close()
        process.terminate()
    for process, _ in workers:
        end_process(process)


def send(pipe: Connection, message: Any) -> None:
    """Sends a message to a process; errors are ignored, the wait for the reply notices its end."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        pipe.send(message)


def exit_reason(process: WorkerProcess) -> str:
    """Describes how a process ended; waits for it a little."""
    process.join(_SECONDS_TO_END)
    code = process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"ended with code {code}"
