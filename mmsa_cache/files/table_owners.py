"""Checks that Optuna and MLflow do not share a database.

Both keep their schema version in a table of the same name. The second one would overwrite it before
it noticed the other's tables.
"""

from __future__ import annotations

from collections.abc import Collection

from mmsa_cache.errors import ModelError

_VERSION = "alembic_version"
_TABLES = {
    "Optuna": {"studies", "study_directions", "trials", "trial_params", "trial_values"},
    "MLflow": {"experiments", "runs", "metrics", "params", "tags"},
}
"""Tables that each program creates before its version."""
_HINTS = {
    "Optuna": "Name another one for studies (--storage sqlite:///FILE).",
    "MLflow": "Name another one for MLflow (MLFLOW_TRACKING_URI).",
}


def check_owner(database: str, tables: Collection[str], program: str) -> None:
    """Refuses a database of another program before anything is written to it.

    Args:
        database: Name in the message.
        tables: Names of all its tables.
        program: The one that will use it, ``Optuna`` or ``MLflow``.

    Raises:
        ModelError: It holds the tables of the other or of a third program.
    """
    owners = [name for name, own in _TABLES.items() if own <= {*tables}]
    if program in owners or not (owners or _VERSION in tables):
        return
    whose = f"{owners[0]}'s tables" if owners else f"another program's {_VERSION}"
    raise ModelError(
        f"The database {database} holds {whose}, beside which {program} cannot keep its own.",
        _HINTS[program],
    )
