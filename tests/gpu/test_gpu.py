"""What must hold on a GPU, on tiny sizes: ``make gpu`` runs this before it measures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from extract.encoders.text import resolve_text
from fuse.losses.acb import AdaptiveClassBalancedLoss
from fuse.losses.acb_kernel import find_kernel
from fuse.setting import Level, Setting
from fuse.training.runner import Runner
from fuse.training.stack import Stack
from fuse.training.stacked_adam import StackedAdam
from fuse.training.task import Checkpoint, Task
from fuse.training.trainer import fit_group
from mmsa_cache.compose.bench.gpu.bench import CLASSES
from mmsa_cache.compose.bench.gpu.plan import STEPS
from mmsa_cache.compose.bench.gpu.process import PREPARATIONS, StepEnvironment, measure
from mmsa_cache.compose.bench.gpu.results import MeasurementLog
from mmsa_cache.compose.bench.gpu.sizes import REHEARSAL
from mmsa_cache.compose.bench.gpu.stores import BenchStore
from mmsa_cache.features.bank import FeatureBank
from tests.support.families import TEXT_FAMILIES, save

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device; run make gpu where one is"
    ),
]
SMALL = Setting(
    text_dim=16, image_dim=16, head="16", layers=1, ffn=32, batch_size=16, epochs=3, keep="last",
    schedule="onecycle", optimiser="adamw", clip=1.0, ema=0.9, precision="float32",
)  # fmt: skip
TOKENS = replace(SMALL, level="tokens", batch_size=32, precision="fast")
"""Texts of four lengths a batch, products in bf16."""
KINDS: list[tuple[str, Level, int]] = [
    ("concat", "pooled", 1),
    ("concat", "pooled", 3),
    ("kernel", "pooled", 2),
    ("attention_concat", "tokens", 1),
    ("encoder", "tokens", 2),
]


@pytest.fixture(autouse=True)
def four_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 32 rows come in four parts."""
    monkeypatch.setattr("fuse.training.buckets.PART_ROWS", 4)


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> StepEnvironment:
    made = StepEnvironment(REHEARSAL, "cuda:0", tmp_path_factory.mktemp("gpu"))
    for work in PREPARATIONS.values():
        work(made, MeasurementLog(made.folder / "prepare.jsonl"))
    return made


@pytest.fixture(scope="module")
def bank(surroundings: StepEnvironment) -> FeatureBank:
    return BenchStore.open(surroundings.folder / "generated").bank().to(torch.device("cuda", 0))


# The other steps are run by what follows these tests, in full.
@pytest.mark.parametrize("name", ["correctness", "memory"])
def test_a_step_holds_on_the_gpu(surroundings: StepEnvironment, name: str) -> None:
    path = surroundings.folder / f"{name}.jsonl"
    measure(STEPS[name].run, surroundings, MeasurementLog(path))
    figures = MeasurementLog.read(path)
    assert figures
    assert [figure for figure in figures if figure.error or figure.holds is False] == []


def stack_of(setting: Setting, bank: FeatureBank, members: int) -> Stack:
    every = np.arange(len(bank))
    tasks = [Task(every[every % 4 != k], every[every % 4 == k], k) for k in range(members)]
    return Stack(
        [
            Runner(setting, bank, task, CLASSES, True, place, Checkpoint())
            for place, task in enumerate(tasks)
        ]
    )


@contextmanager
def no_waiting() -> Iterator[None]:
    """What makes the host wait for the device is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("fusion", "level", "members"), KINDS)
def test_a_graph_does_what_its_step_does_and_no_epoch_waits(
    bank: FeatureBank, fusion: str, level: Level, members: int
) -> None:
    setting = replace(SMALL if level == "pooled" else TOKENS, fusion=fusion)
    captured, plain = stack_of(setting, bank, members), stack_of(setting, bank, members)
    plain.repeated.captures = False
    for number in range(3):
        if number == 0:  # sets things up
            found = captured.epoch(number)
        else:
            with no_waiting():
                found = captured.epoch(number)
        torch.testing.assert_close(found, plain.epoch(number), rtol=1e-4, atol=1e-5)
    assert captured.repeated.captures, "the step was not captured"


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta"])
def test_no_batch_of_texts_waits(family: str, tmp_path: Path) -> None:
    spec = resolve_text(str(save(tmp_path, TEXT_FAMILIES[family][0])), "random", 60, 5)
    encoder = spec.load(torch.device("cuda", 0))
    inputs = encoder.prepare(["a good day", "good " * 9, "a"] * 3)
    encoder.encode(inputs)  # loads kernels
    with no_waiting():
        found = encoder.encode(inputs)
    expected = spec.load(torch.device("cpu")).encode(inputs)
    assert found.lengths == expected.lengths
    for name in ("tokens", "pooled"):
        pair = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(*pair, atol=4e-3, rtol=4e-3)


@pytest.mark.parametrize(("fusion", "level", "members"), KINDS)
def test_the_same_training_gives_the_same_numbers(
    bank: FeatureBank, fusion: str, level: Level, members: int
) -> None:
    setting = replace(SMALL if level == "pooled" else TOKENS, fusion=fusion)
    one, other = stack_of(setting, bank, members), stack_of(setting, bank, members)
    for number in range(2):
        assert torch.equal(one.epoch(number), other.epoch(number))


def test_the_generators_of_the_caller_stay(bank: FeatureBank) -> None:
    torch.cuda.manual_seed(7)
    before, own = torch.cuda.get_rng_state(), torch.get_rng_state()
    every = np.arange(len(bank))
    fit_group(SMALL, bank, [Task(every, every[:9], seed) for seed in range(2)], names=CLASSES)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), own)


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_the_kernel_of_adam_moves_weights_as_torch_does(optimiser: str) -> None:
    setting = replace(SMALL, optimiser=optimiser, weight_decay=0.1)
    given = [torch.rand(3, 1088, device="cuda") for _ in range(5)]
    rates = torch.rand(3, 5, 1, device="cuda")
    rates[:, 3] *= -0.1
    found, expected = ([value.clone() for value in given] for _ in range(2))
    compiled, plain = StackedAdam(setting, *found[:4]), StackedAdam(setting, *expected[:4])
    assert compiled._kernel is not None, "it was not compiled"
    plain._kernel = None
    for move, (*_, gradients) in ((compiled, found), (plain, expected)):
        for _ in range(3):
            move(gradients.clone(), rates)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("margin", ["batch", "sample"])
def test_the_kernel_of_the_loss_gives_what_torch_does(margin: str) -> None:
    found, expected = (
        AdaptiveClassBalancedLoss(3, 0.3, 0.7, "running", margin).to(device)
        for device in ("cuda", "cpu")
    )
    for seed in range(2):
        torch.manual_seed(seed)
        logits, labels = torch.randn(300, 3), torch.randint(3, (300,))
        results = []
        for loss in (found, expected):
            own = logits.to(loss.codes.device).requires_grad_()
            value = loss(own, labels.to(own.device))
            results.append((value.cpu(), torch.autograd.grad(value, own)[0].cpu()))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)
    assert find_kernel(logits.cuda()) is not None, "it was not compiled"
    kept = found.difficulty_sum.cpu(), expected.difficulty_sum
    torch.testing.assert_close(*kept, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_captured_runs_plainly(
    bank: FeatureBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test: a capture that fails could leave something behind."""
    captured = stack_of(SMALL, bank, 2)
    expected = [captured.epoch(number).tolist() for number in range(2)]
    step = Stack._step

    def waiting(stack: Stack, shape: tuple[int, ...]) -> None:
        step(stack, shape)
        if torch.cuda.is_current_stream_capturing():
            stack._totals.tolist()

    monkeypatch.setattr(Stack, "_step", waiting)
    found = stack_of(SMALL, bank, 2)
    with pytest.warns(UserWarning, match="could not be captured as a CUDA graph"):
        first = found.epoch(0).tolist()
    assert not found.repeated.captures
    np.testing.assert_allclose([first, found.epoch(1).tolist()], expected, rtol=1e-4)
    every = np.arange(len(bank))
    monkeypatch.setattr(Stack, "_step", step)
    fit_group(SMALL, bank, [Task(every, every[:9], 1)], names=CLASSES)  # the device still works
