"""Addresses of databases of studies. Passwords are never shown."""

from __future__ import annotations

import contextlib
import getpass
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy
from pydantic import SecretStr

from mmsa_cache.errors import SettingsError, require_extra
from mmsa_cache.files.paths import resolve_declared

from .passwords import find_password

_QUERY = {"application_name", "unix_sock"}
"""Valid parameters of the query, in addition to the password."""
_SECONDS_TO_CONNECT = 10.0
_KEEPALIVE = {
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 60_000,
}
"""The same as for the server's side, see `fuse.search.locks`; the last one in milliseconds."""
_HOW = "Write sqlite:///FILE or postgresql://USER@HOST/DATABASE."


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a SQLite file or a PostgreSQL database."""

    url: sqlalchemy.URL
    """Without a password."""
    password: SecretStr | None = field(default=None, repr=False)
    """The one in the address, if any."""

    @property
    def file(self) -> Path | None:
        """The SQLite file; None: it is PostgreSQL."""
        if self.url.drivername != "sqlite":
            return None
        return resolve_declared(Path(str(self.url.database)))

    def __reduce__(self) -> Any:
        if self.password is not None:
            raise TypeError("An address with a password stays in its process.")
        return Address, (self.url,)

    def secrets(self) -> dict[str, str]:
        """Connection options of PostgreSQL's driver that must not be shown."""
        if self.file is not None:
            return {}
        password = find_password(self.url) if self.password is None else self.password
        return {} if password is None else {"password": password.get_secret_value()}

    def connector(self, **startup: str) -> Callable[[], Any]:
        """Returns a function that connects to PostgreSQL and notices a server that vanishes.

        Args:
            startup: Parameters of the session.

        Raises:
            SettingsError: The driver is not installed.
        """
        with require_extra("PostgreSQL", "postgres"):
            import pg8000
        # Connections to a server that is gone cannot be closed properly.
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
        server = {"host": "localhost", "port": 5432, **self.url.translate_connect_args()}
        user, host, port = server.pop("username"), server["host"], server["port"]

        def connect() -> Any:
            options = {**server, **self.url.query, **self.secrets()}
            with contextlib.ExitStack() as stack:
                try:
                    if "unix_sock" not in options:
                        options["sock"] = stack.enter_context(_open_socket(host, port))
                    connection = pg8000.Connection(user, startup_params=startup, **options)
                except OSError as error:  # the driver does not wrap all of them
                    raise pg8000.InterfaceError(
                        f"no connection to {host}, port {port}: {error}"
                    ) from error
                stack.pop_all()
                return connection

        return connect

    def engine(self, **startup: str) -> sqlalchemy.Engine:
        """An engine for PostgreSQL, see `connector`."""
        return sqlalchemy.create_engine(
            self.url, pool_pre_ping=True, creator=self.connector(**startup)
        )

    def __str__(self) -> str:
        hidden = self.url.set(password="***") if self.password is not None else self.url
        return hidden.render_as_string()


def _open_socket(host: str, port: int) -> socket.socket:
    """Connects with a socket that fails a minute after the server or the network is gone."""
    sock = socket.create_connection((host, port), timeout=_SECONDS_TO_CONNECT)
    sock.settimeout(None)  # waiting for a lock may take long
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


def parse_address(storage: str | Path | Address) -> Address:
    """Parses an address; a path means a SQLite file.

    Raises:
        SettingsError: It is invalid. The message does not repeat it.
    """
    if isinstance(storage, Address):
        return storage
    if isinstance(storage, Path):
        return Address(sqlalchemy.URL.create("sqlite", database=str(storage)))
    try:
        url = sqlalchemy.make_url(storage)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise SettingsError(
            "--storage is no address of a database.", f"{_HOW} A port is a number."
        ) from None
    kind = url.drivername.partition("+")[0]
    if kind == "postgresql":
        return _parse_postgresql(url)
    if kind != "sqlite":
        raise SettingsError("--storage is neither SQLite nor PostgreSQL.", _HOW)
    if not url.database or url.database == ":memory:" or url.query or url.host:
        raise SettingsError("--storage names no SQLite file.", "Write sqlite:///FILE.")
    return Address(url.set(drivername="sqlite"))


def _parse_postgresql(url: sqlalchemy.URL) -> Address:
    query = {key: value for key, value in url.query.items() if isinstance(value, str)}
    in_query = query.pop("password", None)
    valid = len(query.keys() & _QUERY) + (in_query is not None)
    if "@" in f"{url.host}{url.database}" or valid < len(url.query):
        # Parts of the address are not shown: they may be pieces of the password.
        raise SettingsError(
            "--storage is no address of a PostgreSQL database.",
            "In a password write %40 for @, %2F for / and %3F for ?, or leave it out and set "
            f"PGPASSWORD. Behind ? there may be {' and '.join(sorted(_QUERY))}.",
        )
    password = in_query if url.password is None else url.password
    plain = sqlalchemy.URL.create(
        "postgresql+pg8000",
        url.username or getpass.getuser(),
        None,
        url.host,
        url.port,
        url.database,
        query,
    )
    return Address(plain, None if password is None else SecretStr(str(password)))
