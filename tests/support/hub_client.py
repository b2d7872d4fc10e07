"""mmsa in a process whose hub is elsewhere: ``HF_ENDPOINT`` counts when its client is imported.

As a program: reads one JSON list of arguments a line, runs mmsa with it, answers in JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What a command ended with."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


class Client:
    """A process that runs commands.

    Args:
        process: The process.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, *arguments: str, code: int = 0, **environment: str) -> Outcome:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([arguments, environment]) + "\n")
        self._process.stdin.flush()
        outcome = Outcome(**json.loads(self._process.stdout.readline()))
        assert outcome.code == code, outcome.stdout + outcome.stderr
        return outcome


@contextlib.contextmanager
def client(folder: Path, hub: str, token: str) -> Iterator[Client]:
    """Runs mmsa in a folder, on a hub, with a token."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(folder / "hf-home"),
        "HF_TOKEN": token,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    with subprocess.Popen(
        [sys.executable, "-W", "error:::mmsa_cache", "-m", "tests.support.hub_client"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
    ) as process:
        yield Client(process)
        assert process.stdin is not None
        process.stdin.close()


def main() -> None:
    from huggingface_hub import file_download
    from typer.testing import CliRunner

    from mmsa_cache.cli.main import app

    # The client waits a second before each of five tries; nothing gets better here.
    file_download.time = SimpleNamespace(sleep=lambda seconds: None)  # type: ignore[attr-defined]
    for line in sys.stdin:
        arguments, environment = json.loads(line)
        result = CliRunner().invoke(app, arguments, env=environment)
        error = "" if result.exception is None else repr(result.exception)
        outcome = {
            "code": result.exit_code,
            "stdout": result.stdout,
            "stderr": result.stderr + error,
        }
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
