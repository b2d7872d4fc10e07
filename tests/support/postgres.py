"""A throw-away PostgreSQL server on loopback, which a test may stop and start."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    address: str
    """Of a database that nobody uses."""
    control: tuple[str, ...]
    """The start of a ``pg_ctl`` command."""

    def fresh(self, name: str) -> str:
        """Makes a database; its address."""
        import sqlalchemy

        from fuse.search.address import parse_address

        engine = sqlalchemy.create_engine(
            parse_address(self.address).url, isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"create database {name}"))
        engine.dispose()
        return self.address.replace("/postgres", f"/{name}")

    def away(self, seconds: float) -> None:
        """Stops it as a power cut would; it comes back so much later, meanwhile this returns."""
        self._run("-m", "immediate", "stop")

        def back() -> None:
            time.sleep(seconds)
            self._run("start")

        threading.Thread(target=back).start()

    def _run(self, *what: str) -> None:
        subprocess.run([*self.control, *what], check=True, capture_output=True)


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """A server for one module of tests, which are skipped where there is none to be had."""
    pytest.importorskip("pg8000", reason="the extra 'postgres' is not installed")
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = shutil.which("initdb") or (str(places[-1]) if places else None)
    if found is None:
        pytest.skip("Debian's postgresql is not installed")
    programs = Path(found).resolve().parent
    # Not one of pytest's folders: those are closed to the user that the server runs as.
    folder = Path(tempfile.mkdtemp(prefix="mmsa-postgres-"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    subprocess.run(
        [*as_user, programs / "initdb", "-D", data, "-U", "mmsa", "-A", "trust", "-N"],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"
    control = [*as_user, f"{programs}/pg_ctl", "-D", str(data), "-w", "-o", options]
    server = Server(
        f"postgresql://mmsa@127.0.0.1:{port}/postgres", (*control, "-l", f"{folder}/log")
    )
    subprocess.run([*server.control, "start"], check=True, capture_output=True, cwd=folder)
    try:
        yield server
    finally:
        subprocess.run(
            [*server.control, "-m", "immediate", "stop"], check=True, capture_output=True
        )
        shutil.rmtree(folder)
