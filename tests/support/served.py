"""``mmsa serve`` as a process of its own."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image


@dataclass(frozen=True)
class Server:
    """A process that serves the run of a folder."""

    folder: Path
    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """What it says; a body that is no bytes is sent as JSON."""
        if body is not None and not isinstance(body, bytes):
            headers = {"Content-Type": "application/json"} | headers
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@contextlib.contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Server]:
    """Serves a run of a folder; it must end without a word of Python."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mmsa_cache", "serve", "--port", "0", "--json", *flags],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        served = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        yield Server(folder, process, urlsplit(served["url"]).port or 80)
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "Traceback" not in said


def form(*fields: tuple[str, str, bytes]) -> dict[str, Any]:
    """Arguments of `Server.ask` for a form of (name, file's name or none, content)."""
    lines = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        % (name.encode(), f'; filename="{file}"'.encode() if file else b"", content)
        for name, file, content in fields
    )
    return {"body": lines + b"--x--\r\n", "Content-Type": "multipart/form-data; boundary=x"}


def coded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def png(width: int, height: int) -> bytes:
    content = io.BytesIO()
    Image.new("1", (width, height)).save(content, "PNG")
    return content.getvalue()
