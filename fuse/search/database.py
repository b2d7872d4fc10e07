"""The database of studies: its address, and what is trusted in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage

from mmsa_cache.errors import MmsaError, ModelError, SettingsError

from .locks import PATIENCE, AdvisoryLocks, FileLocks, Locks, patiently
from .study_record import StudyRecord
from .trial_record import Trial

DATABASE = Path("studies/studies.db")


def address_of(storage: str | Path) -> sqlalchemy.URL:
    """The database's address; a path means a SQLite file.

    Raises:
        SettingsError: Neither SQLite nor PostgreSQL.
    """
    if isinstance(storage, Path):
        return sqlalchemy.URL.create("sqlite", database=str(storage))
    try:
        url = sqlalchemy.make_url(storage)
    except sqlalchemy.exc.ArgumentError as error:
        raise SettingsError(
            f"--storage {storage!r} is no address.",
            "Write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE.",
        ) from error
    kind = url.get_backend_name()
    if kind == "postgresql":
        return url.set(drivername="postgresql+pg8000")
    if kind != "sqlite" or not url.database or url.database == ":memory:":
        raise SettingsError(
            f"--storage cannot be {url.render_as_string()!r}.",
            "SQLite files (sqlite:///FILE) and PostgreSQL (postgresql://…) are supported.",
        )
    return url


class Database:
    """An open database and its locks; its tables are made where they are not there.

    Raises:
        SettingsError: The driver is not installed.
    """

    def __init__(self, url: sqlalchemy.URL) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.locks: Locks
        options: dict[str, Any]
        if url.get_backend_name() == "sqlite":
            file = Path(str(url.database))
            file.parent.mkdir(parents=True, exist_ok=True)
            self.locks, options = FileLocks(file), {"connect_args": {"timeout": PATIENCE}}
        else:
            try:
                self.locks, options = AdvisoryLocks(url), {"pool_pre_ping": True}
            except ImportError as error:
                raise SettingsError(
                    "PostgreSQL needs the driver pg8000.",
                    "Install it: pip install 'mmsa[postgres]'.",
                ) from error

        def connect() -> RDBStorage:
            # Two processes that make the tables of one fresh database at once would both fail.
            with self.locks.exclusive("schema"):
                return RDBStorage(url.render_as_string(hide_password=False), options)

        self._backend = patiently(connect, url.render_as_string())
        self.storage: BaseStorage = optuna.storages.get_storage(self._backend)

    def close(self) -> None:
        """Releases locks and connections."""
        self.locks.release()
        self._backend.remove_session()
        self._backend.engine.dispose()


# What Optuna raises of rows that it did not write.
_NOT_OURS = (ValueError, LookupError, TypeError, AttributeError, RecursionError, AssertionError)


@contextlib.contextmanager
def made_by_mmsa(place: str) -> Iterator[None]:
    """Optuna keeps JSON; what it cannot read, and what does not fit, was not written by mmsa.

    Raises:
        MmsaError: Something in the database is not what mmsa writes there.
    """
    try:
        yield
    except _NOT_OURS as error:
        if isinstance(error, MmsaError):
            raise
        raise ModelError(
            f"The database {place} holds what mmsa did not write: {str(error)[:300]}.",
            "Restore it, or begin anew in another file (--storage sqlite:///FILE).",
        ) from error


@dataclass(frozen=True, slots=True)
class StoredStudy:
    """A study as its database has it."""

    name: str
    record: StudyRecord
    trials: list[Trial]


def read_studies(storage: str | Path) -> list[StoredStudy]:
    """All studies of a database; none where there is no such file.

    Raises:
        MmsaError: It cannot be read, or holds what mmsa did not write.
    """
    url = address_of(storage)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        return []
    place = url.render_as_string()
    with contextlib.closing(Database(url)) as database:
        opened = database.storage

        def work() -> list[StoredStudy]:
            found = []
            with made_by_mmsa(place):
                for study in opened.get_all_studies():
                    number = opened.get_study_id_from_name(study.study_name)
                    trials = opened.get_all_trials(number, deepcopy=False)
                    record = StudyRecord.of(study.study_name, study.user_attrs)
                    found.append(StoredStudy(study.study_name, record, [*map(Trial.of, trials)]))
            return found

        return patiently(work, place)
