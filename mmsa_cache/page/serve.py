"""``mmsa serve``: a run or an export in a browser, on this machine."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from fuse.figures.calibration import Decide
from mmsa_cache.compose.predict.predictor import find_run, load_predictor
from mmsa_cache.compose.session.path_policy import NO_OVERRIDES, RunOverrides
from mmsa_cache.errors import SettingsError

from .answers import Answers
from .connections import WAITING, Connection
from .guard import Limits, is_loopback
from .service import make_app
from .view import View

_SHUTDOWN_SECONDS = 3
"""Time for requests in progress when the server ends."""


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """What to serve, and where."""

    run: str
    """Name or folder of a run or an export."""
    host: str
    """Name or address to listen on."""
    port: int
    """0: any free port."""
    limits: Limits
    overrides: RunOverrides = NO_OVERRIDES
    decide: Decide | None = None
    """Decision rule; default: the run's."""


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    run: str
    url: str
    only_here: bool
    """Whether only this machine can reach it."""


def serve(request: ServeRequest, ready: Callable[[Served], None]) -> None:
    """Serves until the process is interrupted.

    Args:
        request: What to serve.
        ready: Called when the model is loaded and requests are accepted.

    Raises:
        SettingsError: The server cannot listen on the address.
        ModelError: The run or an encoder cannot be loaded.
    """
    run = find_run(request.run, online=request.overrides.online)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # warns of malformed forms
    with _open_socket(request.host, request.port) as listener:
        url = _url(request.host, listener.getsockname()[1])
        model = load_predictor(run.path, request.overrides, request.decide)
        answers = Answers(model)
        view = View(run, model, request.limits, url)
        config = uvicorn.Config(
            make_app(answers, view, request.host, request.limits),
            http=Connection,
            backlog=WAITING,
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        ready(Served(run.name, url, is_loopback(request.host)))
        asyncio.run(uvicorn.Server(config).serve([listener]))


def _open_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"{host[:200]}:{port} cannot be listened on: {reason}.",
            "Give another --port (0: one that is free), or another --host.",
        ) from error


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
