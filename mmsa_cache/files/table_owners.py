"""Whose tables a database holds: Optuna's and MLflow's cannot stand in one.

Both note the version of their tables under the same name, and whoever comes second makes its own
tables, and spoils that note, before it finds out.
"""

from __future__ import annotations

from collections.abc import Collection

from mmsa_cache.errors import ModelError

_VERSION = "alembic_version"
_TABLES = {
    "Optuna": {"studies", "study_directions", "trials", "trial_params", "trial_values"},
    "MLflow": {"experiments", "runs", "metrics", "params", "tags"},
}
"""What each has made before that note."""
_ANOTHER = {
    "Optuna": "Name another one for studies (--storage sqlite:///FILE).",
    "MLflow": "Name another one for MLflow (MLFLOW_TRACKING_URI).",
}


def check_owner(place: str, tables: Collection[str], program: str) -> None:
    """Refuses a database of another program, before anything is written to it.

    Args:
        place: The database, for the message.
        tables: Names of all that it holds.
        program: ``Optuna`` or ``MLflow``, which is about to use it.

    Raises:
        ModelError: It holds the other one's tables, or those of a third program with such a note.
    """
    owners = [name for name, own in _TABLES.items() if own <= {*tables}]
    if program in owners or not (owners or _VERSION in tables):
        return
    whose = f"{owners[0]}'s tables" if owners else f"another program's {_VERSION}"
    raise ModelError(
        f"The database {place} holds {whose}, beside which {program} cannot keep its own.",
        _ANOTHER[program],
    )
