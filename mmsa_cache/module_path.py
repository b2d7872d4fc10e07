"""Where Python looks for modules: never in the working folder, whose files are from anybody.

``python -m`` and the interpreters that multiprocessing starts have the working folder first, so
that a ``signal.py`` in it would run in place of the standard library's. Nothing is imported here
that Python has not loaded before it looks there.
"""

# ruff: noqa: PTH109, PTH120
import os
import sys


def drop_working_folder() -> None:
    """Takes the working folder off the path of this process and of all that it will start.

    A folder that mmsa itself runs from, a clone that is not installed, stays, as the last one.
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
