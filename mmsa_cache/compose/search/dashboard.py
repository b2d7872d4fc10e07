"""Optuna's dashboard beside a search: for this machine alone, and only to look at."""

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
from fuse.search.database import make_tables, opened_to_read
from mmsa_cache.console import say
from mmsa_cache.errors import require_extra

_HOST = "127.0.0.1"
_SECONDS_TO_END = 0.1
_SECONDS_TO_ASK = 30
"""In which a connection must ask for something, and take each part of the answer."""
_MOST = 32
"""Connections at a time, a thread each; a browser opens six."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._free = threading.BoundedSemaphore(_MOST)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Closes a connection that there is no thread for."""
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
        """Nothing: who left midway, or sent nothing for long, is not told to the searcher."""


class _Handler(WSGIRequestHandler):
    timeout = _SECONDS_TO_ASK

    def get_stderr(self) -> TextIO:
        """Nowhere: the search is shown there."""
        return io.StringIO()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the search is shown there."""


@contextmanager
def dashboard(address: Address) -> Iterator[str]:
    """Shows the studies of a database in a browser, from a thread of this process.

    The database is opened to read, nothing but GET is answered, and nobody but a browser of this
    machine that was led here by name (DNS rebinding).

    Args:
        address: The database; its tables are made where they are not there.

    Yields:
        Address of the page.

    Raises:
        SettingsError: optuna-dashboard is not installed.
    """
    with require_extra("--dashboard", "dashboard"):
        from optuna_dashboard import wsgi
    # What it complains of would be written over the search's table.
    logging.getLogger("optuna_dashboard").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "Some regimes for parameter", UserWarning)
    make_tables(address)
    with (
        opened_to_read(address) as storage,
        make_server(_HOST, 0, _reading_only(wsgi(storage)), _Server, _Handler) as server,
    ):
        thread = threading.Thread(target=server.serve_forever, args=(_SECONDS_TO_END,), daemon=True)
        thread.start()
        try:
            yield f"http://{_HOST}:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def shown_in_browser(address: Address, wanted: bool) -> Iterator[None]:
    """Says where `dashboard` is, if it is wanted."""
    if not wanted:
        yield
        return
    with dashboard(address) as url:
        say(f"Dashboard, while the search runs, on this machine alone: {url}")
        yield


def _reading_only(app: WSGIApplication) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        port = environ["SERVER_PORT"]
        if environ.get("HTTP_HOST") not in (f"{_HOST}:{port}", f"localhost:{port}"):
            refusal = "403 Forbidden", b"Open the address that mmsa search says."
        elif environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            refusal = "405 Method Not Allowed", b"Here studies are only shown."
        else:
            return app(environ, start)
        status, said = refusal
        start(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(said)))])
        return [said]

    return answer
