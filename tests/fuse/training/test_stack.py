"""The step that all members of a stack take together, and its repetition, as far as a CPU goes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fuse.models.fusions import FUSIONS
from fuse.models.kernel import KERNEL
from fuse.setting import Setting
from fuse.training import graphs, memory
from fuse.training.graphs import StepRepeater
from fuse.training.runner import Runner
from fuse.training.stack import Stack
from fuse.training.task import Checkpoint, Fit, Task
from fuse.training.trainer import fit_group
from mmsa_cache.errors import DeviceError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.native import graph_memory
from tests.support.stacks import NAMES, SMALL, TASKS
from tests.support.waiting import NoWaiting


def trained(setting: Setting, bank: FeatureBank, tasks: list[Task], **options: Any) -> list[Fit]:
    return fit_group(setting, bank, tasks, names=NAMES, whole_length=True, **options)


def assert_same(ones: list[Fit], others: list[Fit], tolerance: float) -> None:
    for one, other in zip(ones, others, strict=True):
        for name, value in one.model.state_dict().items():
            expected = other.model.state_dict()[name]
            torch.testing.assert_close(value, expected, atol=tolerance, rtol=0, msg=name)
        assert [e.learning_rate for e in one.history] == [e.learning_rate for e in other.history]


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("schedule", ["plateau", "onecycle", "cosine"])
@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_a_stack_moves_its_weights_as_torch_does(
    bank: FeatureBank, optimiser: str, schedule: str, members: int
) -> None:
    # No hidden layer: batch normalisation makes its bias's gradients 0, and Adam their rounding 1.
    setting = replace(
        SMALL, optimiser=optimiser, schedule=schedule, weight_decay=0.1, clip=0.3, ema=0.7, head=""
    )
    together, apart = (
        trained(setting, bank, TASKS[:members], stacked=stacked) for stacked in (True, False)
    )
    assert_same(together, apart, 2e-5)


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("level", ["pooled", "tokens"])
@pytest.mark.parametrize("fusion", [*FUSIONS, KERNEL])
def test_a_step_reads_nothing_back_and_makes_nothing_on_the_host(
    bank: FeatureBank, fusion: str, level: str, members: int
) -> None:
    setting = replace(SMALL, fusion=fusion, level=level, clip=1.0, ema=0.9, modality_dropout=0.1)
    stack = started(setting, bank, members)
    stack.epoch(0)
    stack._inputs.start(stack._inputs._rates)
    with NothingFromTheHost():
        stack._step()


class NothingFromTheHost(NoWaiting):
    """Fails also on tensors made of Python's numbers, which would be copied to a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket is not torch.ops.aten.lift_fresh, "a tensor is made on the host"
        return super().__torch_dispatch__(func, types, args, kwargs)


def started(setting: Setting, bank: FeatureBank, members: int) -> Stack:
    runners = [
        Runner(setting, bank, task, NAMES, True, place, Checkpoint())
        for place, task in enumerate(TASKS[:members])
    ]
    for runner in runners:
        runner.member.train()
    return Stack(runners)


def test_noise_in_blocks_is_the_same(bank: FeatureBank, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(SMALL, bank, TASKS[:2], stacked=True)
    monkeypatch.setattr("fuse.training.stack._NOISE_BYTES", 1500)
    stack = started(SMALL, bank, 2)
    assert 1 <= len(stack._inputs) < stack._steps
    assert_same(trained(SMALL, bank, TASKS[:2], stacked=True), whole, 0)


@pytest.mark.parametrize("level", ["pooled", "tokens"])
def test_the_next_epoch_lies_ready_and_is_the_one_that_would_be_drawn_late(
    bank: FeatureBank, level: str
) -> None:
    setting = replace(SMALL, level=level)
    early, late = (started(setting, bank, 2) for _ in range(2))
    for number in range(setting.epochs):
        assert torch.equal(early.epoch(number), late.epoch(number))
        ahead = None if early._ahead is None else early._ahead.number
        assert ahead == (number + 1 if number + 1 < setting.epochs else None)
        late._ahead = None
    again = started(setting, bank, 2)
    again.epoch(1)  # another than what lies ready, as after an interruption
    assert again._ahead is not None
    assert again._ahead.number == 2


def test_what_is_kept_of_a_member_is_no_part_of_a_stack(bank: FeatureBank) -> None:
    sizes: list[tuple[int, int]] = []

    class Looking(Checkpoint):
        def is_due(self, index: int, last: bool) -> bool:
            return True

        def save(self, index: int, state: dict[str, Any]) -> None:
            sizes.extend(map(size, state["best_state"].values()))

    def size(value: Tensor) -> tuple[int, int]:
        return value.nbytes, value.untyped_storage().nbytes()

    setting = replace(SMALL, ema=0.9)
    for fit in trained(setting, bank, TASKS[:3], stacked=True, checkpoint=Looking()):
        sizes.extend(map(size, fit.model.state_dict().values()))
    assert sizes
    assert [kept for kept, stored in sizes] == [stored for kept, stored in sizes]


def test_the_generators_of_the_caller_stay(
    bank: FeatureBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.manual_seed_all", lambda seed: pytest.fail("CUDA was seeded"))
    before = torch.get_rng_state()
    for stacked in (True, False):
        trained(replace(SMALL, epochs=1), bank, TASKS[:2], stacked=stacked)
    assert torch.equal(torch.get_rng_state(), before)


# --- memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_stack_is_halved_until_there_is_memory(
    bank: FeatureBank, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    setting = replace(SMALL, head="")  # see above
    expected = trained(setting, bank, TASKS, stacked=True)
    widths = limit(monkeypatch, 1, error)
    reported: list[tuple[int, int]] = []
    found = trained(
        setting, bank, TASKS, stacked=True, on_epoch=lambda r: reported.append((r.member, r.epoch))
    )
    assert widths == [4, 2, 1, 1, 2, 1, 1]
    assert sorted(reported) == [(m, e) for m in range(1, 5) for e in range(1, 4)]
    assert_same(found, expected, 2e-5)
    limit(monkeypatch, 0, error)
    with pytest.raises(DeviceError, match=r"to train 1 model.*batches of 16"):
        trained(SMALL, bank, TASKS, stacked=True)


def limit(monkeypatch: pytest.MonkeyPatch, members: int, error: Exception) -> list[int]:
    """Stacks of more members have no memory in the second step; returns the widths tried."""
    tried: list[int] = []
    step, steps = Stack._step, 0

    def limited(stack: Stack, shape: tuple[int, ...]) -> None:
        nonlocal steps
        if len(tried) == 0 or stack is not limited.__dict__.get("last"):
            limited.__dict__["last"] = stack
            tried.append(len(stack._runners))
            steps = 0
        steps += 1
        if steps == 2 and len(stack._runners) > members:
            raise error
        step(stack, shape)

    monkeypatch.setattr(Stack, "_step", limited)
    return tried


def test_an_error_of_another_kind_ends_the_training(
    bank: FeatureBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        trained(SMALL, bank, TASKS, stacked=True)


def test_as_many_members_train_together_as_memory_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    device, places = torch.device("cuda", 0), list(range(7))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 300)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 200)
    for free, widths in ((10**9, [7]), (12 * 30, [3, 2, 2]), (0, [1] * 7)):
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda device, free=free: (free, 10**9))
        parts = memory.split_to_fit(places, 10, device)
        assert [len(part) for part in parts] == widths, free
        assert sorted(place for part in parts for place in part) == places
    assert memory.split_to_fit(places, 10**12, torch.device("cpu")) == [places]


# --- graphs -------------------------------------------------------------------------------------


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A device whose captures are counted, and fail with `error`."""
    found = SimpleNamespace(captures=0, replays=0, steps=0, capturing=False, error=None, pools=0)

    class Graph:
        def capture_begin(self, **options: Any) -> None:
            found.captures += 1
            found.capturing = True

        def capture_end(self) -> None:
            found.capturing = False
            if found.error is not None:
                raise found.error

        def replay(self) -> None:
            found.replays += 1

    def pool() -> tuple[int, int]:
        found.pools += 1
        return 0, found.pools

    monkeypatch.setattr("torch.cuda.CUDAGraph", Graph)
    monkeypatch.setattr("torch.cuda.graph_pool_handle", pool)
    monkeypatch.setattr("torch.cuda.synchronize", lambda device: None)
    monkeypatch.setattr(graphs, "_on_side_stream", lambda device: nullcontext())
    monkeypatch.setattr(graph_memory, "_LATEST", {})

    def step() -> None:
        if not found.capturing:
            found.steps += 1

    found.step = step
    return found


@pytest.mark.parametrize(("size", "captures"), [(1, 1), (4, 2)])
def test_steps_after_the_first_few_are_launched_as_a_graph(
    device: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, size: int, captures: int
) -> None:
    monkeypatch.setattr(graphs, "STEPS_A_GRAPH", size)
    repeated = StepRepeater(torch.device("cuda", 0))
    for times in (2, 0, 6, 9):
        repeated.run(device.step, times)
    assert repeated.captures
    assert device.steps == graphs.PLAIN_STEPS
    # 14 steps are left: 5 of the third call and 9 of the last
    assert device.replays == (14 if size == 1 else (1 + 1) + (2 + 1))
    assert device.captures == captures


def test_steps_of_each_kind_are_graphs_of_their_own(device: SimpleNamespace) -> None:
    repeated = StepRepeater(torch.device("cuda", 0))
    for kind, times in (("short", 5), ("long", 3), ("short", 2), ("rare", 1)):
        repeated.run(device.step, times, kind)
    assert device.captures == 2
    assert device.steps == graphs.PLAIN_STEPS + 2, "the first step of each kind runs plainly"
    assert device.replays == 2 + 2 + 2
    assert device.pools == 1


def test_graphs_of_all_trainings_share_memory_until_it_is_freed(
    device: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[bool] = []
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: freed.append(True))
    where = torch.device("cuda", 0)
    for pools, plain in ((1, graphs.PLAIN_STEPS), (1, 1), (2, graphs.PLAIN_STEPS)):
        device.steps = 0
        StepRepeater(where).run(device.step, 5)
        assert device.steps == plain, "what one training has set up the next need not"
        (kept,) = graph_memory._LATEST.values()
        assert kept[0] == (0, pools)
        if device.captures == 2:
            graph_memory.free_memory(torch.device("cuda", 1))
            assert graph_memory._LATEST
            graph_memory.free_memory(torch.device("cuda"))
            assert not graph_memory._LATEST
    assert (device.captures, device.pools, freed) == (3, 2, [True] * 2)
    graph_memory.free_memory(torch.device("cpu"))
    assert freed == [True] * 2


def test_where_nothing_can_be_captured_every_step_runs_plainly(device: SimpleNamespace) -> None:
    device.error = RuntimeError("operation not permitted when stream is capturing")
    repeated = StepRepeater(torch.device("cuda", 0))
    repeated.run(device.step, 2)
    with pytest.warns(UserWarning, match="run one by one.*not permitted when stream"):
        repeated.run(device.step, 6)
    repeated.run(device.step, 9)
    assert not repeated.captures
    assert (device.captures, device.replays, device.steps) == (1, 0, 17)


def test_on_a_cpu_every_step_runs_plainly(device: SimpleNamespace) -> None:
    repeated = StepRepeater(torch.device("cpu"))
    repeated.run(device.step, 5)
    assert (device.captures, device.steps, repeated.captures) == (0, 5, False)
