"""Prints the licences of the pinned versions, by their installed metadata: ``make audit``; with
``--check`` only those that are not permissive, and fails: ``make lint``.

Known problems of the versions are not in the metadata: ``pip-audit -r constraints.txt --no-deps
--disable-pip`` lists them, where its advisory service can be reached.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NAME = re.compile(r"[\w.-]+")
_PERMISSIVE = re.compile(
    r"(The )?(0BSD|(2-clause |3-Clause )?BSD([ -]\d-Clause)?( License)?|MIT(-0|-CMU)?( License)?"
    r"|Apache(-2\.0| 2\.0| Software License| License 2\.0)?( License)?( WITH LLVM-exception)?"
    r"|BSL-1\.0|ISC( License \(ISCL\))?|Zlib|CC0-1\.0|CNRI-Python|PSF-2\.0|Unlicense"
    r"|Python Software Foundation License|HPND)",
    re.IGNORECASE,
)
"""One licence, as metadata writes it."""
_FILE_WIDE = re.compile(r"MPL-2\.0|Mozilla Public License 2\.0 \(MPL 2\.0\)")
"""Asks for its own files to stay open; taken where a package is used as it is."""
MISSING = "(not installed)"
"""Of packages of other systems, and of what was not asked for."""
USED_AS_THEY_ARE = {"certifi", "hypothesis", "pathspec", "tqdm"}


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
        return MISSING
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


def is_permissive(said: str, *, file_wide: bool = False) -> bool:
    """Whether all that a package says of its licence leaves its user free; of alternatives one.

    Args:
        said: What `licence` gives.
        file_wide: Whether the Mozilla licence is taken as well.
    """
    return all(
        any(
            _PERMISSIVE.fullmatch(one) or (file_wide and _FILE_WIDE.fullmatch(one))
            for one in part.split(" OR ")
        )
        for part in re.split(" AND |, ", said)
    )


def refused() -> list[str]:
    """Pinned packages whose licence is not permissive, or is not known."""
    found = ((name, licence(name)) for name in sorted(pinned()))
    return [
        f"{name}: {said}"
        for name, said in found
        if said != MISSING and not is_permissive(said, file_wide=name in USED_AS_THEY_ARE)
    ]


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
    if sys.argv[1:] == ["--check"]:
        sys.exit("\n".join(f"not permissive: {line}" for line in refused()) or None)
    main()
