"""The guides "How to add …" are followed as they are written, each in a copy of the source."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.faults


class Copy:
    """A copy of the source, and the code of one guide."""

    def __init__(self, root: Path, page: str, title: str) -> None:
        self.root = root
        for name in ("mmsa_cache", "extract", "fuse", "studies", "tests"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, root)
        guide = (root / page).read_text(encoding="utf-8").partition(f"## How to add {title}\n")[2]
        blocks = re.findall(r"^ *```python\n(.*?)^ *```", guide.partition("\n## ")[0], re.M | re.S)
        self.blocks = [textwrap.dedent(block) for block in blocks]

    def write(self, path: str, text: str) -> None:
        """A new file, or the end of one that is there."""
        file = self.root / path
        before = file.read_text(encoding="utf-8").rstrip() + "\n\n\n" if file.exists() else ""
        file.write_text(before + text, encoding="utf-8")

    def put(self, path: str, text: str, *where: str) -> None:
        """Inserts before the last of some places that follow each other."""
        file = self.root / path
        source, at = file.read_text(encoding="utf-8"), 0
        for place in where:
            at = source.index(place, at)
        file.write_text(source[:at] + text + source[at:], encoding="utf-8")

    def tested(self, *arguments: str) -> None:
        """The tests of the copy pass."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        environment = os.environ | {"PYTHONPATH": str(self.root)}
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:]
        assert re.search(r"\d passed", done.stdout)


def indented(block: str, spaces: int) -> str:
    return textwrap.indent(block, " " * spaces)


def test_a_fusion(tmp_path: Path) -> None:
    copy = Copy(tmp_path, "fuse/README.md", "a fusion")
    fusion, formula = copy.blocks
    copy.write("fuse/models/vector_fusions.py", fusion)
    fusions, test = "fuse/models/fusions.py", "tests/fuse/models/test_fusions.py"
    copy.put(fusions, "from .vector_fusions import Product\n", "from .vector_fusions import")
    copy.put(fusions, '    "product": Product,\n', "\nFUSIONS", "\n}")
    table = "def test_classifier_input_sizes_are_those_of_the_table"
    copy.put(test, '"product": t,\n        ', table, '"lowrank"')
    copy.put(test, indented(formula, 4), "def fuse_row", '    if fusion == "lowrank"')
    copy.tested("tests/fuse", "-k", "product")


def test_a_loss(tmp_path: Path) -> None:
    copy = Copy(tmp_path, "fuse/README.md", "a loss")
    loss, branch, field, formula, case = copy.blocks
    losses, test = "fuse/losses/losses.py", "tests/fuse/losses/test_losses.py"
    copy.put(losses, ', "gce"', "\nLOSSES", ")")
    copy.put(losses, f"{loss}\n\n", "def build_loss")
    copy.put(losses, "    q: float = 0.7,\n", "def build_loss", ") -> Loss")
    copy.put(losses, indented(branch, 4), "def build_loss", '    if name == "focal"')
    copy.put("fuse/setting.py", indented(field, 4), "    tau:", "    balance:")
    copy.put("fuse/training/initial.py", "q=setting.q, ", "build_loss(\n", "tau=setting.tau")
    copy.put("fuse/search/study.py", '    "q": {"loss": ["gce"]},\n', "\nBUILT_IN", "\n}")
    copy.put(test, f"{formula}\n\n", "def focal")
    copy.put(test, indented(case, 8), '("settings_", "formula")', "        *(\n")
    copy.put(test, 'build_loss("gce"), ', "def all_losses", 'build_loss("ce")')
    copy.tested("tests/fuse/losses", "tests/fuse/test_setting.py")


def test_an_encoder_family(tmp_path: Path) -> None:
    copy = Copy(tmp_path, "extract/README.md", "an encoder family")
    tower, spec, built, resolved, test = copy.blocks
    image, names = "extract/encoders/image.py", "import HISTOGRAM, HistogramTower\n"
    copy.write("extract/encoders/histogram_tower.py", tower)
    copy.write("extract/encoders/histogram.py", spec)
    copy.put(image, f"from .histogram_tower {names}", "from .protocol")
    copy.put(image, f"{built.strip()} ", "class ImageEncoder", "self.tower", "TimmTower(")
    session = "mmsa_cache/compose/session/encoders.py"
    for module, name in (("histogram_tower", "HISTOGRAM"), ("histogram", "resolve_histogram")):
        line = f"from extract.encoders.{module} import {name}\n"
        copy.put(session, line, "from extract.encoders.image")
    copy.put(session, indented(resolved, 4), "def _resolve_image", "    return resolve_image(")
    tests = "tests/extract/test_encoders.py"
    copy.put(tests, line, "from extract.encoders.image")
    copy.put(tests, f"\n\n\n{test.rstrip()}", "def test_image_families_give_what", "\n\n\n")
    copy.tested(tests, "-k", "histogram")


def test_a_kind_of_table(tmp_path: Path) -> None:
    copy = Copy(tmp_path, "mmsa_cache/README.md", "a kind of table")
    table, ending, test = copy.blocks
    copy.write("mmsa_cache/data/tables/blocks.py", table)
    copy.put("mmsa_cache/data/tables/__init__.py", indented(ending, 4), "\n_MODULES", '    ".csv"')
    copy.write("tests/data/test_tables.py", test)
    copy.tested("tests/data/test_tables.py")


def test_a_verb(tmp_path: Path) -> None:
    copy = Copy(tmp_path, "mmsa_cache/README.md", "a verb")
    counted, verb, test = copy.blocks
    copy.write("mmsa_cache/compose/classes.py", counted)
    copy.write("mmsa_cache/cli/classes.py", verb)
    copy.write("tests/cli/test_classes.py", test)
    copy.put("mmsa_cache/cli/main.py", "from .classes import classes\n", "from .compare")
    copy.put("mmsa_cache/cli/main.py", "    classes,\n", "\nfor verb in", "    compare,")
    copy.tested("tests/cli/test_classes.py", "tests/cli/test_help.py")
