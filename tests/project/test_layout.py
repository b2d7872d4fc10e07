"""What holds for the source as a whole."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mmsa_cache", "extract", "fuse")
SOURCES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
PAGES = sorted(p for p in ROOT.rglob("*.md") if not {".venv", "build"} & set(p.parts))
MOST_LINES = 300
MOST_OF_ANYTHING = 60


def test_every_source_file_is_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    long = {str(path): lines for path, lines in lengths.items() if lines > MOST_LINES}
    assert long == {}


def test_few_records_travel_as_dictionaries_of_anything() -> None:
    form = re.compile(r"\b(?:dict|Mapping)\[str, Any\]")
    found = [hit for path in SOURCES for hit in form.findall(path.read_text(encoding="utf-8"))]
    assert len(found) < MOST_OF_ANYTHING


def test_no_test_module_imports_another() -> None:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        imported = re.findall(r"^ *from \S*\btest_\w+ import", path.read_text("utf-8"), re.M)
        assert imported == [], path


def test_every_package_is_listed_for_the_wheel() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        setuptools = tomllib.load(file)["tool"]["setuptools"]
    setuptools["packages"].remove("mmsa_cache.studies")  # no code: the folder `studies`
    assert setuptools["package-data"].pop("mmsa_cache.studies") == ["*.toml", "README.md"]
    folders = {path.parent.relative_to(ROOT) for path in SOURCES}
    assert sorted(setuptools["packages"]) == sorted(".".join(f.parts) for f in folders)
    data = {
        (ROOT.joinpath(*package.split(".")) / name)
        for package, names in setuptools["package-data"].items()
        for name in names
    }
    others = {
        path
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert data == others


def test_the_first_page_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size < 12_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("name", ["extract", "fuse"])
def test_the_table_of_a_package_names_its_files(name: str) -> None:
    page = (ROOT / name / "README.md").read_text(encoding="utf-8")
    named = set()
    for row in re.findall(r"^\| (`.*?) \|", page, re.M):
        folder = ""
        for file in re.findall(r"`([\w/]+\.py|\w+/)`", row):
            folder = file.rpartition("/")[0] or folder
            named.add(f"{folder}/{file.rpartition('/')[2]}".lstrip("/"))
    files = {path.relative_to(ROOT / name) for path in SOURCES if path.is_relative_to(ROOT / name)}
    files = {file for file in files if file.name != "__init__.py"}
    whole = {entry.removesuffix("/") for entry in named if entry.endswith("/")}  # as ``figures/``
    left = {str(file) for file in files if str(file.parent) not in whole}
    assert left == {entry for entry in named if not entry.endswith("/")}


def test_no_test_lies_where_an_sdist_takes_it() -> None:
    assert not list((ROOT / "tests").glob("test*.py"))  # setuptools ships these unasked
