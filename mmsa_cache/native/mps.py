"""CUDA's Multi-Process Service: kernels of several processes run on a GPU at the same time.

Without it processes have the GPU in turns, and several small trainings are slower than one.
https://docs.nvidia.com/deploy/mps
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmsa_cache.files.temporary import temporary_folder

PROGRAM = "nvidia-cuda-mps-control"
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
_LOGS = "CUDA_MPS_LOG_DIRECTORY"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_SECONDS_TO_ANSWER = 10.0
_SECONDS_TO_BEGIN = 30.0
"""Of a process that makes a context: the first one waits for the service's server."""
_SECONDS_TO_END = 15.0
_END = 'cat >/dev/null; echo quit | "$0"'
"""Ends the service when this process ends, however it does: its end of the pipe closes."""
_CONTEXT = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
device, context = ctypes.c_int(), ctypes.c_void_p()
if (
    cuda.cuInit(0)
    or cuda.cuDeviceGet(ctypes.byref(device), 0)
    or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
):
    raise SystemExit(1)
"""
_SERVERS = """
import subprocess, sys
for program in sys.argv[1:]:
    subprocess.run([program], input=b"get_server_list\\n", check=True)
"""
"""Prints the service's servers while the process has its context."""


@contextlib.contextmanager
def share_gpus(probe: str = _CONTEXT) -> Iterator[Mapping[str, str] | None]:
    """Lets processes share GPUs as long as the block lasts.

    A service that runs already is used. Else one is started for this block, which only processes
    with the variables know; this one must not be among them, since the service ends with the block.

    Args:
        probe: Python code of a process that makes a context and fails if it cannot.

    Yields:
        Variables for the environment of the processes that share; None: there is no service, and
        processes had better have a GPU each.
    """
    program = shutil.which(PROGRAM)
    if _runs(program):
        yield {} if _makes_context(program, {}, probe) else None
    elif program is None:
        yield None
    else:
        with temporary_folder() as folder, _service(program, folder) as variables:
            shares = variables is not None and _makes_context(program, variables, probe)
            yield variables if shares else None


def _runs(program: str | None) -> bool:
    """Whether a service is there for all processes of this user, or of this environment."""
    if place := os.environ.get(PIPES):  # as in a container, which may lack the program
        return Path(place, "control").exists()
    return program is not None and _ask(program, {}, "get_default_active_thread_percentage")


@contextlib.contextmanager
def _service(program: str, folder: Path) -> Iterator[dict[str, str] | None]:
    """A service of its own in a folder; None where it does not start."""
    variables = {PIPES: str(folder), _LOGS: str(folder)}
    ending = subprocess.Popen(
        ["sh", "-c", _END, program],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **variables},
        start_new_session=True,  # Ctrl-C ends this process, which ends that one
    )
    try:
        # What goes on in the background would hold a pipe open that is read to its end.
        started = _call([program, "-d"], variables, _SECONDS_TO_ANSWER, reads=False) is not None
        yield {**variables, **_visible()} if started else None
    finally:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            ending.communicate(timeout=_SECONDS_TO_END)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(ending.pid, signal.SIGKILL)  # with the program that it may wait for
        ending.wait()


def _visible() -> dict[str, str]:
    """The service sees the GPUs that this process sees, and numbers them anew."""
    seen = os.environ.get(_VISIBLE)
    if not seen:
        return {}
    return {_VISIBLE: ",".join(str(number) for number in range(len(seen.split(","))))}


def _makes_context(program: str | None, variables: Mapping[str, str], probe: str) -> bool:
    """Whether a process with the variables can use a GPU, and does so through the service."""
    python = [sys.executable, "-I", "-c", probe + _SERVERS, *([program] if program else [])]
    said = _call(python, variables, _SECONDS_TO_BEGIN)
    return said is not None and (program is None or _begins_with_a_number(said))


def _ask(program: str, variables: Mapping[str, str], command: str) -> bool:
    """Whether the service answers a command with a number."""
    said = _call([program], variables, _SECONDS_TO_ANSWER, f"{command}\n")
    return _begins_with_a_number(said or "")


def _begins_with_a_number(said: str) -> bool:
    return re.match(r"\s*\d", said) is not None


def _call(
    command: list[str],
    variables: Mapping[str, str],
    seconds: float,
    told: str = "",
    reads: bool = True,
) -> str | None:
    """What a command prints; None where it fails, or takes too long."""
    try:
        done = subprocess.run(
            command,
            input=told,
            stdout=subprocess.PIPE if reads else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=seconds,
            env={**os.environ, **variables},
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout or ""
