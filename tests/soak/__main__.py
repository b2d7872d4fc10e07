"""``python -m tests.soak --minutes 60 --seed N``; what fails leaves its folder, and exit code 1."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_SERVE = """import os, sys
from tests.support.object_server import object_server
with object_server() as address:
    print(*(f"{k}={v}" for k, v in os.environ.items() if k.startswith("AWS_")), flush=True)
    sys.stdin.read()
"""
"""An object store in a process of its own: what it holds is no memory of the driver."""


@contextlib.contextmanager
def object_store() -> Iterator[str]:
    """The address of an empty bucket, to which the environment leads; "" without s3fs or moto."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    told = server.stdout.readline().split()
    os.environ.update(dict(pair.split("=", 1) for pair in told))
    try:
        yield "s3://bucket/soaked" if told else ""
    finally:
        server.communicate()


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mmsa-soak-"))
    (folder / "tmp").mkdir()
    os.environ |= {"MMSA_TEXT_LEXICON": "none", "OMP_NUM_THREADS": "1", "TMPDIR": f"{folder}/tmp"}
    tempfile.tempdir = None  # it is looked up again
    from .driver import Soak

    print(f"Seed {options.seed}, in {folder}", flush=True)
    with object_store() as address:
        (folder / "work").mkdir()
        say = lambda text: print(text, flush=True)  # noqa: E731
        soak = Soak(
            folder / "work", options.seed, address=address, temporary=folder / "tmp", say=say
        )
        if not soak.run(60 * options.minutes):
            return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
