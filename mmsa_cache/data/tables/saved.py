"""Folders written by ``save_to_disk`` of the library ``datasets``."""

from __future__ import annotations

from pathlib import Path

from mmsa_cache.errors import DataError
from mmsa_cache.files.untrusted import parse_json, read_regular
from mmsa_cache.json_value import object_at

STATE = "state.json"
_MAX_STATE = 16 << 20
_INDICES = ("_indices_files", "_indices_data_files")


def saved_tables(folder: Path) -> frozenset[str]:
    """Names of a folder's tables; other files there are the library's own.

    Args:
        folder: A folder with a file ``state.json``.

    Raises:
        DataError: The file names no tables, or selects their rows by indices.
    """
    try:
        state = object_at(parse_json(read_regular(folder / STATE, _MAX_STATE)))
        files = state.get("_data_files")
        if not isinstance(files, list):
            raise ValueError("it names no files")
        names = frozenset(str(object_at(file)["filename"]) for file in files)
    except (OSError, ValueError, LookupError) as error:
        raise DataError(
            f"{folder / STATE} is not what save_to_disk of datasets writes ({error}).",
            "Give one table with --data FILE, or save the data set again.",
        ) from error
    if any(state.get(key) for key in _INDICES):
        raise DataError(
            f"{folder} chooses its rows by a file of indices.",
            "Load it with datasets, and save flatten_indices() of it with save_to_disk.",
        )
    return names
