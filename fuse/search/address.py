"""The address of a database of studies, which is never shown with its password."""

from __future__ import annotations

import getpass
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy
from pydantic import SecretStr

from mmsa_cache.errors import SettingsError
from mmsa_cache.paths import declared

from .passwords import known_password

_QUERY = {"application_name", "unix_sock"}
"""What may stand behind a question mark, beside the password."""
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
        return declared(Path(str(self.url.database)))

    def secrets(self) -> dict[str, Any]:
        """What PostgreSQL's driver is told beside the address."""
        if self.file is not None:
            return {}
        password = known_password(self.url) if self.password is None else self.password
        return {} if password is None else {"password": password.get_secret_value()}

    def engine(self, **options: Any) -> sqlalchemy.Engine:
        """Connections to PostgreSQL.

        Raises:
            SettingsError: The driver is not installed.
        """
        try:
            return sqlalchemy.create_engine(
                self.url, pool_pre_ping=True, connect_args={**self.secrets(), **options}
            )
        except ImportError as error:
            raise no_driver() from error

    def __str__(self) -> str:
        hidden = self.url.set(password="***") if self.password is not None else self.url
        return hidden.render_as_string()


def no_driver() -> SettingsError:
    """PostgreSQL's driver is an extra."""
    return SettingsError(
        "PostgreSQL needs the driver pg8000.", "Install it: pip install 'mmsa[postgres]'."
    )


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
