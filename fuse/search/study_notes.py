"""What is stored about a study beside its trials."""

from __future__ import annotations

from typing import Any

from mmsa_cache.errors import ModelError

IDENTITY = "identity"
SELECTION = "selection"
LOOKS = "looks"
INSIGHT = "insight"


def stored(attributes: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    """What mmsa noted about a study.

    Raises:
        ModelError: Something else stands there.
    """
    value = attributes.get(key, default)
    records = value if isinstance(value, list) else []
    known = all(isinstance(record, dict) and "trial" in record for record in records)
    if value is not default and not (isinstance(value, kind) and known):
        raise ModelError(f"The database holds what mmsa did not write: {key} of the study.")
    return value
