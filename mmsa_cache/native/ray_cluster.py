"""A connection to a Ray cluster, for the length of a command.

A cluster that was there stays as it is; one that is started here ends with the command. Nothing of
the command's environment is given to Ray: what workers need is in what they are sent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from mmsa_cache.console import say
from mmsa_cache.errors import DeviceError, SettingsError, require_extra

from .cores import usable_cores

AUTO = "auto"
"""Address: that of ``RAY_ADDRESS``, or of a cluster that this user or root runs on this machine;
else one is started here."""
_GCS = "--gcs-address="
"""What a process of a cluster is told its address with."""
_LOCAL = "local"
"""Address: one is started here."""
_STORE_BYTES = 200_000_000
"""Of the object store of a cluster that is started here: messages alone go through it."""
_SECONDS_TO_ANSWER = 5.0
_QUIET = {"log_to_driver": False, "logging_level": logging.CRITICAL, "include_dashboard": False}


def import_ray() -> Any:
    """The package.

    Raises:
        SettingsError: It is not installed.
    """
    with require_extra("--engine ray", "ray"):
        import ray
    return ray


@contextlib.contextmanager
def ray_cluster(address: str = AUTO) -> Iterator[Any]:
    """Connects to a cluster; on leaving, what this command runs there ends, the cluster does not.

    Args:
        address: ``HOST:PORT``, `AUTO`, or ``local``. Where this process is connected, it stays so.

    Returns:
        The package ray, connected.

    Raises:
        SettingsError: Ray is missing, or the address is none.
        DeviceError: There is no such cluster, or it does not take this process.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    # It prints what its machines report to standard output, where results go, whatever it is asked.
    ray._private.worker.print_to_stdstream = lambda *data, **more: None
    with _own_signals():
        started = _connect(ray, address)
    try:
        have = ray.cluster_resources()
        size = f"{have.get('CPU', 0):.0f} CPUs, {have.get('GPU', 0):.0f} GPUs"
        nodes = sum(node["Alive"] for node in ray.nodes())
        say(
            f"Ray: started here for this command, {size}."
            if started
            else f"Ray: the cluster at {ray.get_runtime_context().gcs_address}, "
            f"{nodes} nodes, {size}."
        )
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str) -> bool:
    """Whether a cluster was started for it."""
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or AUTO
    if address == AUTO:
        address = _own_cluster() or _LOCAL
    if "://" in address:
        raise SettingsError(
            f"--address {address} is of Ray's client.",
            "Give the command on a machine of the cluster, with --address HOST:PORT or auto.",
        )
    try:
        if address != _LOCAL:
            host, _, port = address.rpartition(":")
            if not is_listening(host.strip("[]"), int(port)):
                raise ConnectionError
            ray.init(address, **_QUIET)
            return False
    except ConnectionError as error:
        raise DeviceError(
            f"There is no Ray cluster at {address}.",
            "Start one (ray start --head), or give --address local.",
        ) from error
    except ray.exceptions.AuthenticationError as error:
        raise SettingsError(
            "The Ray cluster asks for a token.",
            "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file that has it.",
        ) from error
    except (ValueError, OverflowError) as error:
        raise SettingsError(
            f"--address {address} is none.", "Write HOST:PORT, auto or local."
        ) from error
    except RuntimeError as error:  # another version of Ray or of Python
        raise DeviceError(f"Ray cannot be used: {str(error).strip()}") from error
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        # It takes this command alone; Ray would write a token for everything to the user's home.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    cores = usable_cores()
    ray.init(_LOCAL, num_cpus=cores, object_store_memory=_STORE_BYTES, **_QUIET)
    return True


def _own_cluster() -> str | None:
    """The address of the cluster that was started last on this machine, by this user or by root.

    Ray itself takes what any user's process claims, or any user wrote into ``/tmp/ray``; and what
    a cluster answers is unpickled, so that it runs code here.
    """
    import psutil

    found: list[tuple[float, str]] = []
    foreign = False
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            name, *arguments = process.cmdline() or [""]
            given = [word.removeprefix(_GCS) for word in arguments if word.startswith(_GCS)]
            if os.path.basename(name) != "raylet" or not given:  # noqa: PTH119
                continue
            if process.uids().effective in (0, os.geteuid()):
                found.append((process.create_time(), given[0]))
            else:
                foreign = True
    if foreign and not found:
        say("Ray: a cluster of another user is not taken unless --address HOST:PORT names it.")
    return max(found)[1] if found else None


def is_listening(host: str, port: int) -> bool:
    """Whether anybody listens there. Ray itself tries again for many minutes."""
    try:
        socket.create_connection((host, port), _SECONDS_TO_ANSWER).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray would end the process at SIGTERM, in place of the command's orderly end."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
