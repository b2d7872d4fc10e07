"""Locks that decide who may write and who is alive. The system releases those of a dead process.

For a SQLite file they are file locks beside it; in PostgreSQL advisory locks, whose session ends
with its process. There are no heartbeats: a dead owner's lock can be taken, a living one's cannot.
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
"""Seconds to wait for a locked or unreachable database."""
LONG = 20.0
"""A call that fails after more seconds had reached the database: connecting takes less."""
T = TypeVar("T")

# The server notices within a minute that a coordinator's machine has vanished.
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
        self._stack = contextlib.ExitStack()
        self._check: LockCheck = lambda: None
        self._owner = ""

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        return self._database.with_name(f".{self._database.name}.{digest}.lock")

    def _owner_path(self, owner: str) -> Path:
        digest = hashlib.sha256(owner.encode()).hexdigest()[:32]  # the name may be any text
        return self._database.with_name(f".{self._database.name}.owner-{digest}.lock")

    def exclusive(self, name: str) -> contextlib.AbstractContextManager[LockCheck]:
        return hold_lock(self._path(name), waiting=lambda: None)  # a judgement takes long

    def mark_alive(self, owner: str) -> None:
        with self.exclusive("owners"):
            name = glob.escape(self._database.name)
            for path in self._database.parent.glob(f".{name}.owner-*.lock"):
                _remove_if_free(path)  # of a process that was killed before it owned a trial
            self._check = self._stack.enter_context(hold_lock(self._owner_path(owner)))
            self._stack.callback(discard, self._owner_path(owner))
        self._owner = owner

    def renew(self) -> None:
        """Marks the owner again if the lock was lost, as it can be on a disk without ``flock``."""
        try:
            self._check()
        except LostLockError:
            self._stack.close()
            self.mark_alive(self._owner)

    def is_alive(self, owner: str) -> bool:
        return not _remove_if_free(self._owner_path(owner))

    def release(self) -> None:
        self._stack.close()


def _remove_if_free(path: Path) -> bool:
    """Removes a lock file that no process holds; returns whether it was free."""
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
        """Admits one process at a time, while the connection lasts."""
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(_key(name))))
            yield lambda: _ping(connection)

    def mark_alive(self, owner: str) -> None:
        """Marks an owner as alive until this process ends or calls `release`."""
        self._owner = owner
        self._session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._session.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_lock(_key(owner))))

    def renew(self) -> None:
        """Marks the owner again if the lock was lost with its connection."""
        try:
            if self._session is not None:
                _ping(self._session)
                return
        except sqlalchemy.exc.DBAPIError:
            self._end_session()
        self.mark_alive(self._owner)

    def is_alive(self, owner: str) -> bool:
        """Whether a process has marked an owner as alive."""
        with self._engine.begin() as connection:
            free = sqlalchemy.func.pg_try_advisory_xact_lock(_key(owner))
            return not connection.execute(sqlalchemy.select(free)).scalar_one()

    def _end_session(self) -> None:
        """Ends the session, and its lock with it."""
        if self._session is not None:
            self._session.invalidate()
            self._session.close()
            self._session = None

    def release(self) -> None:
        """Releases the locks and closes the connections."""
        self._end_session()
        self._engine.dispose()


def _ping(connection: sqlalchemy.Connection) -> None:
    """Raises if a connection, and the locks that it holds, are lost."""
    connection.execute(sqlalchemy.text("select 1"))


def _key(name: str) -> int:
    """The signed 64-bit number of an advisory lock."""
    digest = hashlib.sha256(f"mmsa:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def retry_until_available(call: Callable[[], T], address: str) -> T:
    """Repeats a call until a locked or unreachable database answers.

    Args:
        call: Must be repeatable, and should cache the results of long computations.
        address: The database's address, for the message.

    Raises:
        ModelError: It is no database, or a damaged one.
        MmsaError: It did not answer for `PATIENCE` seconds.
    """
    last_answer, pause = time.monotonic(), 0.05
    while True:
        started = time.monotonic()
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
                    f"{address} is no database, or a damaged one: {str(cause).splitlines()[0]}",
                    "Restore it, or begin anew in another file (--storage sqlite:///FILE).",
                ) from error
            now = time.monotonic()
            if now - started > LONG:  # the database became unreachable during the call
                last_answer, pause = now, 0.05
            if now - last_answer > PATIENCE:
                raise MmsaError(
                    f"The database {address} does not answer: {str(cause).splitlines()[0]}",
                    "What was finished is kept; run the same command when it is back.",
                ) from error
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def _is_damage(error: BaseException | None) -> bool:
    """Whether SQLite's error is permanent: the file is no database, or holds invalid text (an
    error without a code)."""
    plain = type(error) is sqlite3.DatabaseError
    return plain or (isinstance(error, sqlite3.Error) and not hasattr(error, "sqlite_errorcode"))


Locks = FileLocks | AdvisoryLocks
