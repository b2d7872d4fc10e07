"""``python -m tests.mutants [FILE…] [--share 0.2] [--minutes 60] [--seed 0]``: a line a file."""

from __future__ import annotations

import argparse
import importlib

from .known import TESTS
from .run import run_file

_HEAVY = ("torch", "numpy", "scipy.stats", "sklearn.linear_model", "optuna", "h5py", "pyarrow",
          "pydantic", "transformers", "PIL.Image", "rich")  # fmt: skip


def main() -> int:
    """0 if nine of ten are found in every file."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("files", nargs="*", help="of the table in known.py; all")
    parser.add_argument("--share", type=float, default=1.0, help="of the faults, drawn by the seed")
    parser.add_argument("--minutes", type=float, default=600.0, help="in a file at most")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for name in _HEAVY:
        importlib.import_module(name)
    status = 0
    print("| file | mutants | found | equivalent | missed | not run |\n|---|---|---|---|---|---|")
    for source in asked.files or TESTS:
        results = run_file(source, asked.share, 60 * asked.minutes, asked.seed)
        if results["red"]:
            print(f"{source}: {results['red'][0]}", flush=True)
            status = 1
            continue
        unseen = results["missed"] + [
            f"{what} (no test comes here)" for what in results["unreached"]
        ]
        found, same, later = (len(results[name]) for name in ("found", "equivalent", "not run"))
        total = found + same + len(unseen) + later
        print(f"| {source} | {total} | {found} | {same} | {len(unseen)} | {later} |", flush=True)
        for what in unseen:
            print(f"    {source}:{what}", flush=True)
        status |= found < 0.9 * (found + len(unseen))
    return status


raise SystemExit(main())
