"""Changes single expressions of a file and tells which changes its tests do not see.

``python -m tests.mutants fuse/losses/*.py --tests tests/fuse/losses`` has mutmut make the mutants,
in a copy of the project under `mutants/`, runs each against those of the given tests that reach it,
and prints the differences of those that no test sees, then a row a file: ``make test-mutants``.
Without ``--tests`` it takes the folder of tests with the name of the file's own. With ``--every K``
it takes every K-th mutant, with ``--missed`` those that the last run missed: the tests changed.

What mutmut changes lies in functions and methods: constants of modules, fields of classes and
functions with a decorator stay. Words of errors are left as they are ([tool.mutmut] says so).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "mutants"
FOUND = {"killed", "timeout", "segfault", "suspicious"}


def arguments() -> argparse.Namespace:
    """What is changed, by which tests it is seen, and how many of the mutants are tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tests", nargs="+", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--missed", action="store_true")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    return parser.parse_args()


def beside(file: Path) -> Path:
    """The folder of the file's tests: `mmsa_cache` is left out of its name."""
    return Path("tests", *(part for part in file.parent.parts if part != "mmsa_cache"))


def main() -> int:
    """Tries the mutants; 1 where some were missed."""
    asked = arguments()
    os.chdir(ROOT)
    from mutmut import __main__ as mutmut
    from mutmut import stats
    from mutmut.configuration import config

    if not sys.stdout.isatty():
        mutmut.print_status = stats.print_status = lambda *_, **__: None
    tests = asked.tests or sorted({beside(file) for file in asked.files})
    settings = config()
    settings.only_mutate = [str(file) for file in asked.files]
    settings.pytest_add_cli_args_test_selection = [str(path) for path in tests]
    names: list[str] = []
    if asked.missed:
        names = [name for name, kind in statuses().items() if kind not in FOUND]
        Path(COPY, "mutmut-stats.json").unlink(missing_ok=True)
    else:
        shutil.rmtree(COPY, ignore_errors=True)
    if asked.every > 1:
        make_mutants(asked.processes)
        names = list(statuses())[:: asked.every]
    mutmut._run(names, asked.processes)
    return report()


def make_mutants(processes: int) -> None:
    """Writes them without trying any, so that a sample can be drawn by name."""
    from mutmut import __main__ as mutmut
    from mutmut.utils.file_utils import copy_src_dir

    mutmut.set_mutant_under_test("mutant_generation")
    copy_src_dir()
    mutmut.create_mutants(processes)


def data_by_file() -> dict[str, dict[str, int | None]]:
    """Exit codes of the tests by mutant, by file; None of one that was not tried."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.utils.file_utils import walk_mutatable_files

    codes = {}
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        codes[str(path)] = dict(data.exit_code_by_key)
    return codes


def statuses() -> dict[str, str]:
    """What became of each mutant: killed, survived, no tests, timeout, not checked."""
    from mutmut.stats import status_by_exit_code

    codes = (item for by_name in data_by_file().values() for item in by_name.items())
    return {name: status_by_exit_code[code] for name, code in codes}


def report() -> int:
    """Prints what was missed, and a row a file; 1 where something was missed."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    kinds, rows = statuses(), []
    for path, codes in data_by_file().items():
        tried = [name for name in codes if kinds[name] != "not checked"]
        missed = [name for name in tried if kinds[name] not in FOUND]
        for name in missed:
            changes = get_diff_for_mutant(name, path=path).splitlines()[3:]
            print(f"\n# {name}: {kinds[name]}")
            print("\n".join(line for line in changes if line[:1] in {"-", "+"}))
        if tried:
            rows.append((path, len(tried), len(tried) - len(missed), len(missed)))
    print("\n| file | mutants | found | missed |\n|---|---|---|---|")
    for row in rows:
        print("| {} | {} | {} | {} |".format(*row))
    return int(any(row[-1] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
