"""Studies of a database, for reading."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from .database import Database, address_of, check_trials, made_by_mmsa
from .locks import patiently


@dataclass(frozen=True, slots=True)
class Record:
    """A study as its database has it, for reading."""

    name: str
    attributes: dict[str, Any]
    trials: list[FrozenTrial]


def read_records(storage: str | Path) -> list[Record]:
    """All studies of a database; none where there is no such file."""
    url = address_of(storage)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        return []
    with contextlib.closing(Database(url)) as database:
        opened = database.storage

        def work() -> list[Record]:
            records = []
            with made_by_mmsa(url.render_as_string()):
                for study in opened.get_all_studies():
                    number = opened.get_study_id_from_name(study.study_name)
                    trials = opened.get_all_trials(number, deepcopy=False)
                    check_trials(trials)
                    records.append(Record(study.study_name, study.user_attrs, trials))
            return records

        return patiently(work, url.render_as_string())
