"""No memory at the n-th operation of torch, in any verb: half of it is tried, or it is said."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from mmsa_cache.cli.main import app
from tests.support.scarce import NO_MEMORY, Scarce
from tests.support.small_work import make_work, mmsa
from tests.support.tally import Tally
from tests.support.verbs import FEW

LOST = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
pytestmark = pytest.mark.faults
MANY = 40
"""Places in each verb."""
POST = ("--text", "good day", "--image", "posts/pairs/1.jpg")
VERBS: dict[str, Callable[[str], tuple[str, ...]]] = {
    "train": lambda name: ("train", *FEW, "--set", "fusion=gated", "--name", name),
    "train by L-BFGS": lambda name: (
        *("train", *FEW, "--set", "fusion=kernel", "--set", "loss=ce"),
        *("--set", "optimiser=lbfgs", "--name", name),
    ),
    "evaluate": lambda name: ("evaluate", "--run", "whole"),
    "predict a post": lambda name: ("predict", "--run", "whole", *POST),
    "report": lambda name: ("report", "whole"),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = make_work(tmp_path_factory.mktemp("scarce"), text_model)
    mmsa(folder, "train", *FEW, "--set", "fusion=gated", "--name", "whole")
    return folder


def attempt(folder: Path, arguments: tuple[str, ...], scarce: Scarce) -> Result:
    with chdir(folder), scarce:
        return CliRunner().invoke(app, arguments)


def places(count: int, many: int) -> Iterator[int]:
    """Numbers of operations, the first and the last among them."""
    return iter(sorted({1 + round(n * (count - 1) / (many - 1)) for n in range(many)}))


@pytest.mark.parametrize("error", [NO_MEMORY, LOST], ids=["no memory", "lost"])
@pytest.mark.parametrize("name", VERBS)
def test_the_nth_operation_has_no_memory(
    work: Path, name: str, error: Exception, tally: Tally
) -> None:
    runs = (
        f"{name[-4:]}-{error.__class__.__name__}-{number}".strip() for number in itertools.count()
    )
    verb = VERBS[name]
    counting = Scarce()
    whole = attempt(work, verb(next(runs)), counting)
    assert whole.exit_code == 0, whole.output
    said, failures = 0, []
    for at in places(counting.done, MANY):
        run = next(runs)
        result = attempt(work, verb(run), Scarce(at, error))
        said += result.exit_code == 5
        text = result.stderr.replace("Nothing is damaged", "")
        right = (
            ("memory" in text.lower() or "The device does nothing more" in text)
            and "damaged" not in text
            and not (work / "runs" / run).exists()
        )
        # Mapping a file needs no memory, and torch.asarray hides what a mode raises in it.
        wrapped = result.exit_code == 4 and "UntypedStorage" in text
        if result.exit_code and not wrapped and not (result.exit_code == 5 and right):
            end = f"{result.exit_code} {result.exception!r}"
            failures.append(f"operation {at} of {counting.done}: {end}: {result.output}")
    assert not failures, "\n".join(failures)
    assert attempt(work, verb(next(runs)), Scarce()).exit_code == 0
    kind = "no memory" if error is NO_MEMORY else "device lost"
    tally(f"{kind} at the n-th of {counting.done} operations, {name}", MANY, f"{said} times exit 5")
