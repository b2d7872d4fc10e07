"""Locks that tell who may write and who is alive; the system drops those of a dead process.

Beside a SQLite file they are file locks; in PostgreSQL advisory locks, whose session ends with its
process. No clocks, no heartbeats: a dead owner's lock can be taken, a living one's cannot.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import optuna
import sqlalchemy

from mmsa_cache.errors import LostLockError, MmsaError, ModelError
from mmsa_cache.files.disk import discard
from mmsa_cache.files.locks import LockCheck, hold_lock, try_lock

from .address import Address

PATIENCE = 90.0
"""Seconds that a locked or absent database is waited for."""
LONG = 20.0
"""Seconds that a call takes only if the database answers; to reach it takes less."""
T = TypeVar("T")

# A machine that vanishes with its coordinator is noticed by the server within a minute.
_POSTGRES = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


class FileLocks:
    """Locks beside a SQLite file, with the methods of `AdvisoryLocks`.

    Args:
        database: The file.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._own = contextlib.ExitStack()
        self._check: LockCheck = lambda: None
        self._owner = ""

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        return self._database.with_name(f".{self._database.name}.{digest}.lock")

    def _owner_path(self, owner: str) -> Path:
        digest = hashlib.sha256(owner.encode()).hexdigest()[:32]  # whatever a database says
        return self._database.with_name(f".{self._database.name}.owner-{digest}.lock")

    @contextlib.contextmanager
    def exclusive(self, name: str) -> Iterator[LockCheck]:
        with hold_lock(
            self._path(name), waiting=lambda: None
        ) as check:  # a judgement takes its time
            yield check

    def hold(self, owner: str) -> None:
        with self.exclusive("owners"):
            name = glob.escape(self._database.name)
            for path in self._database.parent.glob(f".{name}.owner-*.lock"):
                _clear(path)  # killed before it owned a trial
            self._check = self._own.enter_context(hold_lock(self._owner_path(owner)))
            self._own.callback(discard, self._owner_path(owner))
        self._owner = owner

    def keep(self) -> None:
        """Marks it again if the mark was lost, as it can be on a disk without ``flock``."""
        try:
            self._check()
        except LostLockError:
            self._own.close()
            self.hold(self._owner)

    def is_held(self, owner: str) -> bool:
        return not _clear(self._owner_path(owner))

    def release(self) -> None:
        self._own.close()


def _clear(path: Path) -> bool:
    """Removes a lock file that no process holds; tells whether none does."""
    with try_lock(path) as free:
        if free:
            discard(path)
    return free


class AdvisoryLocks:
    """Locks inside a PostgreSQL database."""

    def __init__(self, address: Address) -> None:
        self._engine = address.engine(**_POSTGRES)
        self._session: sqlalchemy.Connection | None = None
        self._owner = ""

    @contextlib.contextmanager
    def exclusive(self, name: str) -> Iterator[LockCheck]:
        """One process at a time, as long as the block lasts and the server does not go away."""
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(_key(name))))
            yield lambda: _ask(connection)

    def hold(self, owner: str) -> None:
        """Marks an owner as alive until this process ends or `release`."""
        self._owner = owner
        self._session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._session.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_lock(_key(owner))))

    def keep(self) -> None:
        """Marks it again if the mark was lost with a connection."""
        try:
            if self._session is not None:
                _ask(self._session)
                return
        except sqlalchemy.exc.DBAPIError:
            self._drop()
        self.hold(self._owner)

    def is_held(self, owner: str) -> bool:
        """Whether an owner is alive."""
        with self._engine.begin() as connection:
            free = sqlalchemy.func.pg_try_advisory_xact_lock(_key(owner))
            return not connection.execute(sqlalchemy.select(free)).scalar_one()

    def _drop(self) -> None:
        """Ends the session, and its lock with it."""
        if self._session is not None:
            self._session.invalidate()
            self._session.close()
            self._session = None

    def release(self) -> None:
        self._drop()
        self._engine.dispose()


def _ask(connection: sqlalchemy.Connection) -> None:
    """Raises where a connection, and the locks that it holds, are gone."""
    connection.execute(sqlalchemy.text("select 1"))


def _key(name: str) -> int:
    """A signed 64-bit number, as advisory locks want it."""
    digest = hashlib.sha256(f"mmsa:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def patiently(call: Callable[[], T], place: str) -> T:
    """Calls until a locked or absent database answers; the call must be repeatable.

    Args:
        call: The work; of what takes long in it, it should keep the result for the next time.
        place: The database's address, for the message.

    Raises:
        ModelError: It is no database, or a damaged one.
        MmsaError: It did not answer for `PATIENCE` seconds.
    """
    answered, pause = time.monotonic(), 0.05
    while True:
        began = time.monotonic()
        try:
            return call()
        except (
            optuna.exceptions.StorageInternalError,
            sqlalchemy.exc.DBAPIError,
            LostLockError,
        ) as error:
            cause = error.__cause__ or error
            if _is_damage(getattr(error, "orig", None) or getattr(cause, "orig", None)):
                raise ModelError(
                    f"{place} is no database, or a damaged one: {str(cause).splitlines()[0]}",
                    "Restore it, or begin anew in another file (--storage sqlite:///FILE).",
                ) from error
            now = time.monotonic()
            if now - began > LONG:  # it went away in the middle of that
                answered, pause = now, 0.05
            if now - answered > PATIENCE:
                raise MmsaError(
                    f"The database {place} does not answer: {str(cause).splitlines()[0]}",
                    "What was finished is kept; run the same command when it is back.",
                ) from error
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def _is_damage(error: BaseException | None) -> bool:
    """Whether SQLite's error will stay: no database, or text that is none, which has no code."""
    plain = type(error) is sqlite3.DatabaseError
    return plain or (isinstance(error, sqlite3.Error) and not hasattr(error, "sqlite_errorcode"))


Locks = FileLocks | AdvisoryLocks
