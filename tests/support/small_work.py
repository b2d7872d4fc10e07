"""A working folder with a tiny data set, tiny random-weight encoders and their caches."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from mmsa_cache.cli.main import app
from tests.support.pairs import make_pairs
from tests.support.tiny import tiny_toml

QUICK = ("--folds", "2", "--outer", "grouped", "--set", "epochs=2", "--set", "text_dim=16")
QUICK += ("--set", "image_dim=16", "--set", "head=12")


def make_work(folder: Path, text_model: Path) -> Path:
    """Data, ``mmsa.toml`` and the caches of the training rows."""
    make_pairs(folder / "posts", 92)
    (folder / "mmsa.toml").write_text(
        tiny_toml(
            text_model,
            "mobilenetv2_035",
            """[extract]
variants = "none"
""",
            data='root = "posts"\nnote = "drawn by a test"',
        )
    )
    call(folder, "extract")
    return folder


def mmsa(folder: Path, *arguments: str, code: int = 0) -> Result:
    """Runs mmsa in a folder, in this process: its libraries are imported once for all calls."""
    with contextlib.chdir(folder):
        result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


def call(folder: Path, *arguments: str, code: int = 0) -> str:
    """What mmsa says: standard output, of a failure standard error too."""
    result = mmsa(folder, *arguments, code=code)
    return result.stdout if code == 0 else result.output


def call_json(folder: Path, *arguments: str) -> Any:
    """What mmsa gives as JSON."""
    return json.loads(call(folder, *arguments, "--json"))
