"""Prints the licences of the pinned versions, by their installed metadata: ``make audit``.

Known problems of the versions are not in the metadata: ``pip-audit -r constraints.txt --no-deps
--disable-pip`` lists them, where its advisory service can be reached.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NAME = re.compile(r"[\w.-]+")


def direct() -> set[str]:
    """What `pyproject.toml` asks for, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return {_canonical(_NAME.match(line)[0]) for lines in lists for line in lines}


def pinned() -> dict[str, str]:
    """Version by name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {_canonical(name): version for name, version in pairs}


def licence(name: str) -> str:
    """What a package says of its licence: by its expression, its classifiers, or its own words."""
    try:
        found = distribution(name).metadata
    except PackageNotFoundError:
        return "(not installed)"
    classified = [
        line.rpartition(" :: ")[2]
        for line in found.get_all("Classifier", [])
        if line.startswith("License ::") and not line.endswith("OSI Approved")
    ]
    text = (found.get("License") or "").strip().splitlines()
    return (
        found.get("License-Expression")
        or ", ".join(classified)
        or (text[0][:60] if text else "(not stated)")
    )


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Direct dependencies one a line, the others by licence."""
    versions, wanted = pinned(), direct()
    print("| package | version | licence |\n|---|---|---|")
    for name in sorted(wanted & versions.keys()):
        print(f"| {name} | {versions[name]} | {licence(name)} |")
    others = defaultdict(list)
    for name in sorted(versions.keys() - wanted):
        others[licence(name)].append(f"{name} {versions[name]}")
    print()
    for kind in sorted(others):
        print(f"- {kind}: {', '.join(others[kind])}")


if __name__ == "__main__":
    main()
