"""Runs the command line in forked children of one process that has imported everything.

A start of Python with torch and transformers takes seconds; a fork takes hundredths. One JSON line
a request: ``{"start": [argument, …], "cwd": …, "log": …, "under": …}`` answers the process number,
``{"wait": number}`` its exit code (−signal where one ended it).
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.support.conditions import Conditions
from tests.support.faulty import fork
from tests.support.forked import start_forked


def main() -> None:
    import torch

    from extract import publisher
    from extract.crew import local
    from extract.encoders.compat import prepare_torchvision
    from fuse.search import pool
    from mmsa_cache.cli import main as cli
    from mmsa_cache.compose.extraction import reading
    from mmsa_cache.compose.train import train  # noqa: F401

    torch.set_num_threads(1)
    publisher.GATHERED_SECONDS = 0.0  # windows are sealed one by one, as of a slow encoder
    local.start_process = pool.processes.start_process = start_forked
    prepare_torchvision()
    reading._import_libraries()
    import transformers

    for name in sys.argv[1:]:
        importlib.import_module(name)
    for name in ("AutoConfig", "AutoModel", "AutoTokenizer", "BertModel"):
        getattr(transformers, name)

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
            continue

        def work(request: dict[str, Any] = request) -> None:
            os.chdir(request["cwd"])
            Conditions(**request["under"]).enter()
            sys.argv = ["mmsa", *request["start"]]
            cli.main()

        print(json.dumps(fork(work, Path(request["log"]))), flush=True)


class ForkServer:
    """The other end.

    Args:
        folder: Where commands run, and where their output goes, ``log.txt``.
        modules: What is imported beforehand, beside what extraction needs.
        environ: Variables beside those of this process; None removes one.
    """

    def __init__(
        self, folder: Path, *modules: str, environ: Mapping[str, str | None] | None = None
    ) -> None:
        self.folder = folder
        self.log = folder / "log.txt"
        variables: dict[str, str | None] = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **(environ or {}),
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__, *modules],
            cwd=folder,
            env={name: value for name, value in variables.items() if value is not None},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    @property
    def pid(self) -> int:
        """Of the process that commands are forked off."""
        return self._process.pid

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the fork server has ended"
        return json.loads(line)

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def start(self, *arguments: str, under: Conditions | None = None) -> int:
        """Starts ``mmsa ARGUMENTS``; its process number."""
        request = {"start": arguments, "cwd": str(self.folder), "log": str(self.log)}
        return int(self._ask({**request, "under": asdict(under or Conditions())}))

    def wait(self, pid: int) -> int:
        """Its exit code."""
        return int(self._ask({"wait": pid}))

    def run(self, *arguments: str, under: Conditions | None = None) -> int:
        """Runs ``mmsa ARGUMENTS``; its exit code."""
        return self.wait(self.start(*arguments, under=under))

    def said(self, after: int = 0) -> str:
        """What commands printed, from a byte on."""
        return self.log.read_bytes()[after:].decode()

    def close(self) -> None:
        self._process.communicate()


if __name__ == "__main__":
    main()
