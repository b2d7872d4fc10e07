"""Keeps the working folder, whose files may be anybody's, off Python's module path.

``python -m`` and the interpreters that multiprocessing starts search the working folder first: a
``signal.py`` there would run in place of the standard library's. This module imports only what
Python has loaded already.
"""

# ruff: noqa: PTH109, PTH120
import os
import sys


def drop_working_folder() -> None:
    """Removes the working folder from the module path of this process and of its children.

    If mmsa itself runs from there (a clone that is not installed), the folder stays as the last.
    """
    if sys.flags.ignore_environment and not sys.flags.safe_path:
        sys.stderr.write("error: with -E, Python needs -P too: -E hides it from its processes.\n")
        raise SystemExit(2)
    home = os.getcwd()
    source = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))

    def safe(entries: list[str]) -> list[str]:
        return [entry for entry in entries if os.path.realpath(entry) != home]

    in_source = home == source and safe(sys.path) != sys.path
    sys.path[:] = safe(sys.path) + [source] * in_source
    declared = os.environ.pop("PYTHONPATH", "").split(os.pathsep)
    if kept := sys.path if in_source else safe(declared):
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    os.environ["PYTHONSAFEPATH"] = "1"
