"""Optuna and MLflow are pointed to one database: the second one writes nothing there."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy
from optuna.storages._rdb.models import BaseModel

from fuse.search.address import Address, parse_address
from fuse.search.choice import summarise_studies
from fuse.search.ledger import Ledger
from mmsa_cache.errors import ModelError
from mmsa_cache.files import table_owners
from mmsa_cache.files.table_owners import check_owner
from mmsa_cache.runs.trackers import TrackedRun
from mmsa_cache.runs.tracking import tracking
from tests.support.postgres import Server, running_server

MLFLOW = [f"create table {name} (x integer)" for name in table_owners._TABLES["MLflow"]]
AIRFLOW = ["create table dag (x integer)"]
NOTE = "create table alembic_version (version_num varchar(32))"


def fill(address: Address, statements: list[str]) -> None:
    """Makes what another program would."""
    if address.file is None:
        engine = address.engine()
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(sqlalchemy.text(statement))
        engine.dispose()
    else:
        with contextlib.closing(sqlite3.connect(address.file)) as connection, connection:
            for statement in statements:
                connection.execute(statement)


def dump(address: Address) -> dict[str, list[tuple[object, ...]]]:
    """All tables and rows."""
    if address.file is not None:
        return {"": [(address.file.read_bytes(),)]}
    engine = address.engine()
    with engine.connect() as connection:
        names = sqlalchemy.inspect(engine).get_table_names()
        rows = {
            name: [
                tuple(row) for row in connection.execute(sqlalchemy.text(f'select * from "{name}"'))
            ]
            for name in names
        }
    engine.dispose()
    return rows


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a fresh database."""
    monkeypatch.chdir(tmp_path)
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/one.db"
    server: Server = request.getfixturevalue("server")
    return server.fresh(request.node.name.translate(str.maketrans("[]- ", "____")).lower()[-50:])


def track(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.replace("postgresql:", "postgresql+pg8000:"))
    with tracking(["mlflow"], TrackedRun("r", Path("runs/r"), {})):
        pass


WAYS: dict[str, Callable[[str], object]] = {
    "search": lambda place: Ledger(place, "s").close(),
    "list": summarise_studies,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("made", [MLFLOW, [*MLFLOW, NOTE]])
def test_studies_are_not_put_beside_mlflow(place: str, made: list[str], way: str) -> None:
    address = parse_address(place)
    fill(address, made)
    before = dump(address)
    with pytest.raises(
        ModelError, match=r"holds MLflow's tables, beside which Optuna.*\n.*--storage"
    ):
        WAYS[way](place)
    assert dump(address) == before


def test_runs_are_not_put_beside_studies(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    Ledger(place, "s").close()
    before = dump(parse_address(place))
    with pytest.raises(ModelError, match=r"holds Optuna's tables.*\n.*MLFLOW_TRACKING_URI"):
        track(place, monkeypatch)
    assert dump(parse_address(place)) == before
    assert [summary.study for summary in summarise_studies(place)] == ["s"]


def test_a_third_program_is_told_apart_by_its_note(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    address = parse_address(place)
    fill(address, [*AIRFLOW, NOTE])
    before = dump(address)
    with pytest.raises(ModelError, match=r"another program's|did not write"):
        Ledger(place, "s")
    with pytest.raises(ModelError, match="another program's alembic_version, beside which MLflow"):
        track(place, monkeypatch)
    assert dump(address) == before


def test_the_file_beside_the_runs_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Ledger(Path("runs/mlflow.db"), "s").close()
    with (
        pytest.raises(ModelError, match="holds Optuna's tables"),
        tracking(["mlflow"], TrackedRun("r", Path("runs/r"), {})),
    ):
        pass


def test_tables_are_those_that_the_programs_make() -> None:
    models = pytest.importorskip("mlflow.store.tracking.dbmodels.initial_models")
    assert table_owners._TABLES["MLflow"] <= models.Base.metadata.tables.keys()
    assert table_owners._TABLES["Optuna"] <= BaseModel.metadata.tables.keys()


@pytest.mark.parametrize("program", ["Optuna", "MLflow"])
def test_own_and_unknown_tables_are_no_matter(program: str) -> None:
    own = table_owners._TABLES[program]
    other = table_owners._TABLES["MLflow" if program == "Optuna" else "Optuna"]
    for tables in (set(), {"notes"}, own, own | {"alembic_version"}, set(list(own)[:2])):
        check_owner("x", tables, program)
    check_owner(
        "x", own | other | {"alembic_version"}, program
    )  # the library says whose note it is
    with pytest.raises(ModelError):
        check_owner("x", {*list(own)[:2], "alembic_version"}, program)
