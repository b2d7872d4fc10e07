"""Optuna's dashboard beside a search: read-only, and for this machine alone."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any, TextIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from fuse.search.address import Address
from fuse.search.database import create_tables, open_read_only
from mmsa_cache.console import say
from mmsa_cache.errors import require_extra

_HOST = "127.0.0.1"
_SECONDS_TO_END = 0.1
_SECONDS_TO_ASK = 30
"""Time in which a connection must send its request, and take each part of the response."""
_MAX_CONNECTIONS = 32
"""Connections at a time, with a thread each; a browser opens six."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Closes the connection if there is no free thread."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread can be started
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that disconnect or time out."""


class _Handler(WSGIRequestHandler):
    timeout = _SECONDS_TO_ASK

    def get_stderr(self) -> TextIO:
        """Discards messages: the terminal shows the search."""
        return io.StringIO()

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: the terminal shows the search."""


@contextmanager
def dashboard(address: Address) -> Iterator[str]:
    """Serves the studies of a database to browsers, from a thread of this process.

    The database is opened read-only, only GET and HEAD are answered, and only under the names of
    this machine (against DNS rebinding).

    Args:
        address: The database; missing tables are made.

    Yields:
        URL of the page.

    Raises:
        SettingsError: optuna-dashboard is not installed.
    """
    with require_extra("--dashboard", "dashboard"):
        from optuna_dashboard import wsgi
    # Its warnings would be written over the table of the search.
    logging.getLogger("optuna_dashboard").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "Some regimes for parameter", UserWarning)
    create_tables(address)
    with (
        open_read_only(address) as storage,
        make_server(_HOST, 0, _read_only(wsgi(storage)), _Server, _Handler) as server,
    ):
        thread = threading.Thread(target=server.serve_forever, args=(_SECONDS_TO_END,), daemon=True)
        thread.start()
        try:
            yield f"http://{_HOST}:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def show_dashboard(address: Address, enabled: bool) -> Iterator[None]:
    """Serves the `dashboard` if it is enabled, and tells the user its URL."""
    if not enabled:
        yield
        return
    with dashboard(address) as url:
        say(f"Dashboard, while the search runs, on this machine alone: {url}")
        yield


def _read_only(app: WSGIApplication) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        port = environ["SERVER_PORT"]
        if environ.get("HTTP_HOST") not in (f"{_HOST}:{port}", f"localhost:{port}"):
            status, body = "403 Forbidden", b"Open the address that mmsa search says."
        elif environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", b"Here studies are only shown."
        else:
            return app(environ, start)
        start(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    return answer
