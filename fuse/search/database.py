"""The database of studies: opening and checking it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
import sqlalchemy
from alembic.util import CommandError
from optuna.storages import BaseStorage, RDBStorage

from mmsa_cache.errors import MmsaError, ModelError
from mmsa_cache.files.disk import make_folders
from mmsa_cache.files.sqlite_file import Schema, check_sqlite, sqlite_uri
from mmsa_cache.files.table_owners import check_owner

from .address import Address, parse_address
from .locks import LONG, AdvisoryLocks, FileLocks, Locks, retry_until_available
from .study_record import StudyRecord
from .trial_record import Trial

DATABASE = Path("studies/studies.db")


@functools.cache
def _schema() -> Schema:
    """The tables and indexes that Optuna makes."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = RDBStorage("sqlite://")
    with storage.engine.connect() as connection:
        rows = connection.execute(
            sqlalchemy.text("select type, name, tbl_name, sql from sqlite_master")
        )
        return frozenset(map(tuple, rows))


def _open(address: Address, *, write: bool) -> RDBStorage:
    """Opens a database with Optuna, which creates missing tables.

    Raises:
        MmsaError: The driver is missing, or another Optuna created the tables.
    """
    url = address.url
    options: dict[str, object] = {}
    if address.file is not None:
        query = {"mode": "rwc" if write else "ro", "uri": "true"}
        url = url.set(database=sqlite_uri(address.file), query=query)
        # Signals are handled between two attempts.
        options["connect_args"] = {"timeout": LONG / 2 if write else 1.0}
    else:
        readonly = {} if write else {"default_transaction_read_only": "on"}
        options["creator"] = address.connector(**readonly)
    try:
        return RDBStorage(url.render_as_string(), {"pool_pre_ping": True, **options})
    except (RuntimeError, CommandError) as error:
        raise ModelError(
            f"The database {address} is of another version of Optuna: {error}",
            "Begin anew in another file (--storage sqlite:///FILE).",
        ) from error


def _close(backend: RDBStorage) -> None:
    backend.remove_session()
    backend.engine.dispose()


class Database:
    """An open database and its locks. Missing tables are created.

    Raises:
        SettingsError: The driver is not installed.
        ModelError: The file holds what mmsa did not write.
    """

    def __init__(self, address: Address) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        file = address.file
        if file is not None:
            make_folders(file.parent)
        self.locks: Locks = AdvisoryLocks(address) if file is None else FileLocks(file)

        def connect() -> RDBStorage:
            # Two processes that create the tables of one database at once would both fail.
            with self.locks.exclusive("schema"):
                if file is not None:
                    check_sqlite(file, _schema(), write=True)
                else:
                    _tables(address)
                return _open(address, write=True)

        try:
            self._backend = retry_until_available(connect, str(address))
        except BaseException:
            self.locks.release()
            raise
        self.storage: BaseStorage = optuna.storages.get_storage(self._backend)

    def close(self) -> None:
        """Releases locks and connections."""
        self.locks.release()
        _close(self._backend)


def _has_tables(address: Address) -> bool:
    """Whether Optuna has created its tables. Writes nothing."""
    if address.file is not None:
        rows = check_sqlite(address.file, _schema(), write=False)
        return bool(rows.get("alembic_version") and rows.get("version_info"))
    return "alembic_version" in _tables(address)


def _tables(address: Address) -> list[str]:
    """The tables of a PostgreSQL database; refuses those of another program."""
    engine = address.engine()
    try:
        names = sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()
    check_owner(str(address), names, "Optuna")
    return names


# Raised by Optuna for rows that it did not write.
_FOREIGN_CONTENT = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    AssertionError,
    OverflowError,
)


@contextlib.contextmanager
def reject_foreign_content(address: str) -> Iterator[None]:
    """Turns errors of reading JSON that mmsa did not write into a `ModelError`.

    Raises:
        MmsaError: The database has content that mmsa does not write.
    """
    try:
        yield
    except _FOREIGN_CONTENT as error:
        if isinstance(error, MmsaError):
            raise
        raise ModelError(
            f"The database {address} holds what mmsa did not write: {str(error)[:300]}.",
            "Restore it, or begin anew in another file (--storage sqlite:///FILE).",
        ) from error


@dataclass(frozen=True, slots=True)
class StoredStudy:
    """A study as its database has it."""

    name: str
    record: StudyRecord
    trials: list[Trial]


def read_studies(storage: str | Path | Address) -> list[StoredStudy]:
    """All studies of a database; none if it has no tables. Writes nothing.

    Raises:
        MmsaError: It cannot be read, or has content that mmsa does not write.
    """
    address = parse_address(storage)
    shown = str(address)
    if not retry_until_available(lambda: _has_tables(address), shown):
        return []
    with open_read_only(address) as backend:

        def read() -> list[StoredStudy]:
            studies = []
            with reject_foreign_content(shown):
                for study in backend.get_all_studies():
                    study_id = backend.get_study_id_from_name(study.study_name)
                    trials = backend.get_all_trials(study_id, deepcopy=False)
                    record = StudyRecord.of(study.study_name, study.user_attrs)
                    studies.append(StoredStudy(study.study_name, record, [*map(Trial.of, trials)]))
            return studies

        return retry_until_available(read, shown)


@contextlib.contextmanager
def open_read_only(address: Address) -> Iterator[BaseStorage]:
    """Opens a database that has tables, with connections that cannot write.

    Raises:
        MmsaError: It cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    backend = retry_until_available(lambda: _open(address, write=False), str(address))
    try:
        yield optuna.storages.get_storage(backend)
    finally:
        _close(backend)


def create_tables(address: Address) -> None:
    """Creates the missing tables of a database.

    Raises:
        MmsaError: See `Database`.
    """
    Database(address).close()
