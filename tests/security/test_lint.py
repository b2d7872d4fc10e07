"""The rule that files are opened through two modules alone."""

from __future__ import annotations

import ast

import pytest

from tests.lint import findings, problems


def test_files_are_opened_through_the_disk_and_the_reader_alone() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("open(x)", "open"),
        ("x.open()", ".open"),
        ("x.open('rb')", ".open"),
        ("x.open(encoding='utf-8')", ".open"),
        ("(a / b).write_text(c)", ".write_text"),
        ("Path(x).mkdir()", ".mkdir"),
        ("a.b().rename(c)", ".rename"),
        ("picture.save(a / b)", ".save"),
        ("a.replace(b)", ".replace"),
        ("import os\nos.open(x, 0)", "os.open"),
        ("from os import unlink as u\nu(x)", "os.unlink"),
        ("import shutil as s\ns.rmtree(x)", "shutil.rmtree"),
        ("def f():\n    import tempfile\n    tempfile.mkdtemp()", "tempfile.mkdtemp"),
        ("import numpy as np\nnp.savez(x)", "numpy.savez"),
        ("from safetensors.torch import save_file\nsave_file(a, b)", "safetensors.torch.save_file"),
        ("import safetensors.torch\nsafetensors.torch.load_file(b)", "safetensors.torch.load_file"),
        ("from filelock import FileLock\nFileLock(x)", "filelock.FileLock"),
        ("from PIL import Image\nImage.open(x)", "PIL.Image.open"),
    ],
)
def test_what_opens_moves_or_removes_files_is_found(line: str, name: str) -> None:
    assert [found for _, found in findings(ast.parse(line))] == [name]


@pytest.mark.parametrize(
    "line",
    [
        "text.replace('a', 'b')",
        "date.replace(year=1)",
        "known.save()",
        "Store.open(folder)",
        "banks.open(pairs, 3)",
        "import shutil\nshutil.disk_usage(x)",
        "import os\nos.fstat(x)",
        "from dataclasses import replace\nreplace(a, b=1)",
    ],
)
def test_what_does_not_is_left_alone(line: str) -> None:
    assert list(findings(ast.parse(line))) == []
