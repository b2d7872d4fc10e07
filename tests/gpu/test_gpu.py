"""What must hold on a GPU, on tiny sizes: ``make gpu`` runs this before it measures."""

from __future__ import annotations

import pytest
import torch

from mmsa_cache.compose.gpu_bench.plan import STEPS
from mmsa_cache.compose.gpu_bench.process import Surroundings, measure, prepare
from mmsa_cache.compose.gpu_bench.results import Figures
from mmsa_cache.compose.gpu_bench.sizes import REHEARSAL

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device; run make gpu where one is"
    ),
]


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Surroundings:
    made = Surroundings(REHEARSAL, "cuda", tmp_path_factory.mktemp("gpu"))
    prepare(made, Figures(made.folder / "prepare.jsonl"))
    return made


@pytest.mark.parametrize("name", [name for name in STEPS if name != "stage one"])
def test_a_step_runs_on_the_gpu(surroundings: Surroundings, name: str) -> None:
    path = surroundings.folder / f"{name}.jsonl"
    measure(STEPS[name].run, surroundings, Figures(path))
    figures = Figures.read(path)
    assert figures
    assert [figure for figure in figures if figure.error] == []


def test_the_gpu_gives_what_the_cpu_gives(surroundings: Surroundings) -> None:
    path = surroundings.folder / "again.jsonl"
    measure(STEPS["correctness"].run, surroundings, Figures(path))
    assert [figure for figure in Figures.read(path) if figure.holds is False] == []


def test_a_device_without_memory_ends_in_words(surroundings: Surroundings) -> None:
    path = surroundings.folder / "memory.jsonl"
    measure(STEPS["memory"].run, surroundings, Figures(path))
    assert [figure for figure in Figures.read(path) if figure.holds is False] == []
