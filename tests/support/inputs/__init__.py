"""Small data folders, each with what reading it must give: the table of ``test_inputs_table``."""

from __future__ import annotations

from .bad import BAD, FATAL, FINE
from .build import Input as Input
from .containers import CONTAINERS
from .folders import FOLDERS
from .pictures import PICTURES
from .tables import TABLES
from .values import VALUES

_ALL = (*TABLES, *VALUES, *CONTAINERS, *FOLDERS, *PICTURES, *BAD, *FATAL, *FINE)
READ = [given for given in _ALL if given.rows]
REFUSED = [given for given in _ALL if not given.rows]
