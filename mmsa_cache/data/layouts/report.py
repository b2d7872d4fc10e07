"""Label files without texts and pictures: ``guid,tag`` files and tables."""

from __future__ import annotations

from pathlib import Path

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.tables.text_lines import with_utf8
from mmsa_cache.errors import DataError

from .classes import LABELS, ClassNames
from .listing import LabelRow, Listing, raise_problems
from .tables import HEADER as HEADER
from .tables import table_rows


def read_labels(
    path: Path, classes: tuple[str, ...] = LABELS, data: DataSettings | None = None
) -> list[LabelRow]:
    """Reads the guids and labels of a ``guid,tag`` file (UTF-8) or of any table.

    Args:
        path: The label file.
        classes: Class names; a class's code is its index.
        data: Columns and encoding of a table.

    Raises:
        DataError: Lists all problems, one line per cause.
    """
    if not path.is_file():
        raise DataError(f"There is no label file {path}.", "Give an existing one with --labels.")
    settings = (data or DataSettings()).model_copy(update={"root": path})
    plain = path.suffix.lower() == ".txt"
    listing = Listing(path, "report" if plain else "tables", "", ClassNames(classes))
    listing.read = table_rows([path], with_utf8(settings) if plain else settings)
    rows = list(listing.rows())
    raise_problems(listing.problems, path)
    return rows
