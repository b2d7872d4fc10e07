"""The database of studies: its address, and what is trusted in it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from mmsa_cache.errors import MmsaError, ModelError, SettingsError

from .locks import PATIENCE, AdvisoryLocks, FileLocks, Locks, patiently

DATABASE = Path("studies/studies.db")
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


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
        """Lets go of locks and connections."""
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


def check_trials(trials: Iterable[FrozenTrial]) -> None:
    """Checks what is stored with trials, since anything may stand in a database.

    Raises:
        ValueError: Names the trial and what is wrong.
    """
    for trial in trials:
        attributes = trial.user_attrs
        ended = trial.state in FINISHED
        result = attributes.get("result", {})
        wrong = [
            name
            for name, right in (
                ("setting", isinstance(attributes.get("setting"), dict)),
                ("deaths", type(attributes.get("deaths", 0)) is int),
                ("failure", isinstance(attributes.get("failure", ""), str)),
                ("result", isinstance(result, dict) and (not ended or _is_result(result))),
                ("value", not ended or (trial.value is not None and math.isfinite(trial.value))),
            )
            if not right
        ]
        if wrong:
            raise ValueError(f"trial {trial.number}: {', '.join(wrong)}")


def _is_result(result: dict[str, Any]) -> bool:
    """Whether a finished trial's result has what choices are made by."""
    units, steps = result.get("units"), result.get("steps")
    return (
        isinstance(units, list)
        and isinstance(steps, dict)
        and all(isinstance(step, str) and step.isdecimal() for step in steps)
        and all(
            type(number) in (int, float) and math.isfinite(number)
            for number in (*units, *steps.values(), result.get("parameters"), result.get("seconds"))
        )
    )
