"""What the members of a group do together: they begin, are scored and end."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fuse import mapping
from fuse.fields import Level
from fuse.figures.metrics import selection_score
from fuse.figures.records import MetricScores
from fuse.models.fusions import FUSIONS
from fuse.models.kernel import KERNEL
from fuse.setting import Setting
from fuse.training import scoring
from fuse.training.classifier import input_dims, make_model, matmul_precision
from fuse.training.initial import draw_initial
from fuse.training.runner import Runner
from fuse.training.scoring import StackScores
from fuse.training.stack import Stack
from fuse.training.task import Checkpoint, State, Task, TrainingError
from fuse.training.trainer import fit_group
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.bank import FeatureBank
from tests.support.stacks import NAMES, SMALL, TASKS
from tests.support.waiting import NoWaiting

UNEVEN = [
    Task(np.arange(k, k + 40), np.arange(20 + k, 20 + k + held_out), k)
    for k, held_out in enumerate((20, 7, 0, 33))
]


def stack_of(setting: Setting, bank: FeatureBank, tasks: list[Task]) -> tuple[Stack, list[Runner]]:
    runners = [
        Runner(setting, bank, task, NAMES, True, place, Checkpoint())
        for place, task in enumerate(tasks)
    ]
    return Stack(runners), runners


def test_a_group_of_none_is_trained_at_once(bank: FeatureBank) -> None:
    for stacked in (True, False):
        assert fit_group(SMALL, bank, [], names=NAMES, stacked=stacked) == []


# --- beginning ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", [*FUSIONS, KERNEL])
def test_members_begin_as_a_model_that_is_built_with_their_seed(
    bank: FeatureBank, fusion: str
) -> None:
    setting = replace(SMALL, fusion=fusion, beside=True, layers=2, pooling="attention")
    before = torch.get_rng_state()
    together = draw_initial(setting, bank, TASKS, NAMES)
    assert torch.equal(torch.get_rng_state(), before)
    for task, found in zip(TASKS, together, strict=True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)
            wanted = make_model(setting, input_dims(bank, setting), 3, len(task.train)).state_dict()
            chosen = torch.randperm(len(task.train))[: setting.landmarks].sort().values
        for name, value in found.model.state_dict().items():
            assert torch.equal(value, wanted[name]), name
        assert torch.equal(found.landmarks, chosen)


def test_members_begin_side_by_side_also_where_torch_has_one_thread(
    bank: FeatureBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All four are inside at once, or the barrier breaks."""
    monkeypatch.setattr("fuse.training.initial.usable_cores", lambda: 4)
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    together = threading.Barrier(4, timeout=60)

    def waiting(*args: Any) -> Any:
        together.wait()
        return make_model(*args)

    monkeypatch.setattr("fuse.training.initial.make_model", waiting)
    assert len(draw_initial(SMALL, bank, TASKS, NAMES)) == 4


def test_a_setting_that_makes_no_model_says_so_of_a_group(bank: FeatureBank) -> None:
    with pytest.raises(SettingsError, match="makes no model"):
        fit_group(
            replace(SMALL, fusion="combine", image_dim=9), bank, TASKS, names=NAMES, stacked=True
        )


def test_rows_of_members_are_listed_once(bank: FeatureBank) -> None:
    rows = np.arange(3, 30)
    assert bank.items(rows, variants=False) is bank.items([*range(3, 30)], variants=False)
    assert bank.items(rows, variants=False) is not bank.items(rows, variants=True)
    for first in range(100):  # the oldest are forgotten
        bank.items(np.arange(first, first + 2) % len(bank), variants=False)
    assert len(bank._items._results) <= 64


# --- scores -------------------------------------------------------------------------------------


def scores_of(stack: Stack) -> list[MetricScores | None]:
    with matmul_precision(stack._setting):
        found = stack.scores(torch.zeros(len(stack._runners)))
    return [scores() for _, scores in found]


@pytest.mark.parametrize("ema", [0.0, 0.8])
@pytest.mark.parametrize("level", ["pooled", "tokens"])
@pytest.mark.parametrize("fusion", [*FUSIONS, KERNEL])
def test_members_scored_together_have_the_scores_that_each_has_alone(
    bank: FeatureBank, monkeypatch: pytest.MonkeyPatch, fusion: str, level: str, ema: float
) -> None:
    monkeypatch.setitem(scoring._ROWS, level, 0)  # two passes, of twice the rows of a step each
    setting = replace(SMALL, fusion=fusion, level=level, ema=ema, batch_size=12, beside=True)
    stack, runners = stack_of(setting, bank, UNEVEN)
    assert len(stack.scores._passes) == 2
    with matmul_precision(setting):
        stack.epoch(0)
    for found, runner in zip(scores_of(stack), runners, strict=True):
        wanted = runner.scores()
        assert (found is None) == (wanted is None) == (not len(runner.task.validation))
        if found is not None and wanted is not None:
            assert found.model_dump() == pytest.approx(wanted.model_dump(), abs=1e-6)


@pytest.mark.parametrize("classes", [3, 7])
def test_the_figures_of_probabilities_are_those_of_selection_score(
    bank: FeatureBank, monkeypatch: pytest.MonkeyPatch, classes: int
) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(4, 33, classes, generator=generator) * 20
    logits[:, ::5] = 0.0  # equally likely classes
    logits[:, 1::5, 0] = 1e9  # a true class that is impossible
    monkeypatch.setattr(StackScores, "_logits", lambda self, batch: logits)
    held_out = [bank.items(task.validation, variants=False) for task in UNEVEN]
    model = draw_initial(SMALL, bank, TASKS[:1], NAMES)[0].model
    scores = StackScores(model, SMALL, bank, held_out, {}, {})
    found = scores(torch.tensor([1.0, 2.5, 3.0, 4.0]))
    assert [loss for loss, _ in found] == [1.0, 2.5, 3.0, 4.0]
    for (_, of), task, rows in zip(found, UNEVEN, logits, strict=True):
        held, own = len(task.validation), of()
        if not held:
            assert own is None
            continue
        assert own is not None
        probabilities = rows[:held].double().softmax(1).numpy()
        wanted = selection_score(bank.labels[task.validation].numpy(), probabilities)
        assert own.model_dump() == pytest.approx(wanted.model_dump(), rel=1e-12)


@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("level", ["pooled", "tokens"])
def test_scoring_does_not_wait_for_the_device(bank: FeatureBank, level: str, members: int) -> None:
    stack, _ = stack_of(replace(SMALL, level=level, fusion="encoder"), bank, TASKS[:members])
    with NoWaiting(), torch.no_grad():
        for given in stack.scores._passes:
            assert stack.scores._tally(*given).shape == (members, 1 + len(NAMES) ** 2)


def test_texts_are_padded_to_the_longest_of_a_pass(
    bank: FeatureBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scoring._ROWS, "tokens", 0)
    setting = replace(SMALL, level="tokens", batch_size=2)
    stack, runners = stack_of(setting, bank, [UNEVEN[0], UNEVEN[3]])
    lengths = [
        bank.text.lengths(bank.items(r.task.validation, variants=False)[:, 1]).sort().values
        for r in runners
    ]
    longest = [
        int(max(of[first : first + 4].max() for of in lengths if len(of) > first))
        for first in range(0, 33, 4)
    ]
    assert [length for _, _, length in stack.scores._passes] == longest
    assert longest[0] < longest[-1]


def test_a_member_that_diverges_is_named_as_one_alone_is(bank: FeatureBank) -> None:
    setting = replace(SMALL, learning_rate=1e30, clip=0.0, head="", epochs=6, norm="none")
    for stacked in (True, False):
        with pytest.raises(TrainingError, match="The loss is nan"):
            fit_group(setting, bank, TASKS, names=NAMES, stacked=stacked)


def test_without_validation_rows_nothing_is_scored(bank: FeatureBank) -> None:
    setting = replace(SMALL, keep="last", epochs=2)
    tasks = [replace(task, validation=np.empty(0, np.int64)) for task in TASKS[:2]]
    for fit in fit_group(setting, bank, tasks, names=NAMES, stacked=True):
        assert [record.macro_f1 for record in fit.history] == [None, None]


# --- end ----------------------------------------------------------------------------------------


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("schedule", ["plateau", "onecycle"])
def test_nothing_of_a_stack_is_left_to_the_garbage_collector(
    bank: FeatureBank, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    """What holds a graph's memory goes when the training ends, not in the middle of another."""
    made: list[weakref.ref[Any]] = []
    for kind in (Stack, StackScores, Runner):
        begin = kind.__init__

        def noted(self: Any, *args: Any, begin: Any = begin, **options: Any) -> None:
            begin(self, *args, **options)
            made.append(weakref.ref(self))

        monkeypatch.setattr(kind, "__init__", noted)
    setting = replace(SMALL, schedule=schedule, ema=0.9)
    fits = fit_group(setting, bank, TASKS, names=NAMES, stacked=True)
    assert len(fits) == len(TASKS)
    assert len(made) == len(TASKS) + 2
    assert [kept() for kept in made] == [None] * len(made)


def test_the_state_of_a_member_is_made_where_it_is_kept(bank: FeatureBank) -> None:
    class Second(Checkpoint):
        def __init__(self) -> None:
            self.asked: list[tuple[int, bool]] = []
            self.kept: list[int] = []

        def is_due(self, index: int, last: bool) -> bool:
            self.asked.append((index, last))
            return index == 1

        def save(self, index: int, state: State) -> None:
            self.kept.append(index)
            assert state["stopped"] == self.asked[-1][1]

    checkpoint = Second()
    setting = replace(SMALL, epochs=2)
    fit_group(setting, bank, TASKS[:2], names=NAMES, stacked=True, checkpoint=checkpoint)
    assert checkpoint.asked == [(0, False), (1, False), (0, True), (1, True)]
    assert checkpoint.kept == [1, 1]


def test_the_best_epoch_is_kept_in_the_tensors_of_an_earlier_best(bank: FeatureBank) -> None:
    _, (runner,) = stack_of(SMALL, bank, TASKS[:1])
    progress, state = runner.progress, runner.scored_model.state_dict()
    progress.store_best(state)
    places = {name: value.data_ptr() for name, value in progress.best_state.items()}
    changed: dict[str, Tensor] = {name: value + 1 for name, value in state.items()}
    progress.store_best(changed)
    assert {name: value.data_ptr() for name, value in progress.best_state.items()} == places
    progress.load_best(state)
    for name, value in runner.scored_model.state_dict().items():
        assert torch.equal(value, changed[name]), name


@pytest.mark.parametrize("level", ["pooled", "tokens"])
def test_members_that_cannot_take_part_together_train_the_same(
    bank: FeatureBank, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with another version of torch, whose `vmap` is another inside."""
    setting = replace(SMALL, level=level, fusion="attention_concat", loss="acb")
    together = fit_group(setting, bank, TASKS, names=NAMES, stacked=True)
    monkeypatch.setattr(mapping, "SUPPORTED", False)
    monkeypatch.setattr(mapping, "is_batchedtensor", None)
    apart = fit_group(setting, bank, TASKS, names=NAMES, stacked=True)
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(
            [e.loss for e in one.history], [e.loss for e in other.history], rtol=1e-4
        )
