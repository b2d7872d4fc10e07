"""Values of a setting typed as ``key=value``."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from fuse.figures.study import Value
from fuse.setting import FIELDS
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import suggest_or_list
from mmsa_cache.validation import describe_error


def parse_assignments(assignments: Sequence[str]) -> dict[str, Value]:
    """Parses ``["fusion=concat", "text_dim=128"]`` to values of the fields' types.

    Raises:
        SettingsError: Names each assignment to an unknown field, or with a value that does not fit.
    """
    values: dict[str, Value] = {}
    problems = []
    for assignment in assignments:
        key, _, text = assignment.partition("=")
        if key not in FIELDS:
            problems.append(f"{key}: unknown setting{suggest_or_list(key, FIELDS)}")
            continue
        try:
            values[key] = FIELDS[key].validate_strings(text)
        except ValidationError as error:
            problems.append(f"{key}: {describe_error(error.errors()[0])}")
    if problems:
        raise SettingsError("These settings cannot be used.", "Write --set key=value.", problems)
    return values
