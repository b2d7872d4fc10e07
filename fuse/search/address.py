"""The address of a database of studies, which is never shown with its password."""

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

from .passwords import known_password

_QUERY = {"application_name", "unix_sock"}
"""What may stand behind a question mark, beside the password."""
_SECONDS_TO_CONNECT = 10.0
_KEPT_ALIVE = {
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 60_000,
}
"""As the server is told of its side, see `fuse.search.locks`; the last one in milliseconds."""
_HOW = "Write sqlite:///FILE or postgresql://USER@HOST/DATABASE."


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a SQLite file or a PostgreSQL database, its password kept apart."""

    url: sqlalchemy.URL
    """Without a password."""
    password: SecretStr | None = field(default=None, repr=False)
    """What the address itself says."""

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
        """What PostgreSQL's driver is told beside the address."""
        if self.file is not None:
            return {}
        password = known_password(self.url) if self.password is None else self.password
        return {} if password is None else {"password": password.get_secret_value()}

    def connector(self, **startup: str) -> Callable[[], Any]:
        """Makes connections to PostgreSQL, whose other end may vanish without a word.

        Args:
            startup: Parameters of the session.

        Raises:
            SettingsError: The driver is not installed.
        """
        with require_extra("PostgreSQL", "postgres"):
            import pg8000
        # Of connections to a server that is gone, which cannot be closed properly any more.
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
        place = {"host": "localhost", "port": 5432, **self.url.translate_connect_args()}
        user = place.pop("username")

        def connect() -> Any:
            options = {**place, **self.url.query, **self.secrets()}
            with contextlib.ExitStack() as stack:
                try:
                    if "unix_sock" not in options:
                        options["sock"] = stack.enter_context(_socket(place["host"], place["port"]))
                    made = pg8000.Connection(user, startup_params=startup, **options)
                except OSError as error:  # the driver lets some through as they are
                    raise pg8000.InterfaceError(
                        f"no connection to {place['host']}, port {place['port']}: {error}"
                    ) from error
                stack.pop_all()
                return made

        return connect

    def engine(self, **startup: str) -> sqlalchemy.Engine:
        """Connections to PostgreSQL, see `connector`."""
        return sqlalchemy.create_engine(
            self.url, pool_pre_ping=True, creator=self.connector(**startup)
        )

    def __str__(self) -> str:
        hidden = self.url.set(password="***") if self.password is not None else self.url
        return hidden.render_as_string()


def _socket(host: str, port: int) -> socket.socket:
    """A connection that ends a minute after the other end, or the way there, is gone."""
    connected = socket.create_connection((host, port), timeout=_SECONDS_TO_CONNECT)
    connected.settimeout(None)  # a lock may be waited for for long
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEPT_ALIVE.items():
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connected


def address_of(storage: str | Path | Address) -> Address:
    """Reads an address; a path means a SQLite file.

    Raises:
        SettingsError: It is none. The message does not repeat it.
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
        return _of_postgresql(url)
    if kind != "sqlite":
        raise SettingsError("--storage is neither SQLite nor PostgreSQL.", _HOW)
    if not url.database or url.database == ":memory:" or url.query or url.host:
        raise SettingsError("--storage names no SQLite file.", "Write sqlite:///FILE.")
    return Address(url.set(drivername="sqlite"))


def _of_postgresql(url: sqlalchemy.URL) -> Address:
    query = {key: value for key, value in url.query.items() if isinstance(value, str)}
    named = query.pop("password", None)
    if "@" in f"{url.host}{url.database}" or len(query.keys() & _QUERY) + (named is not None) < len(
        url.query
    ):
        # Nothing of it is repeated: it may be a piece of the password.
        raise SettingsError(
            "--storage is no address of a PostgreSQL database.",
            "In a password write %40 for @, %2F for / and %3F for ?, or leave it out and set "
            f"PGPASSWORD. Behind ? there may be {' and '.join(sorted(_QUERY))}.",
        )
    password = named if url.password is None else url.password
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
