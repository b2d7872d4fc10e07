"""The CUDA kernel that moves weights, as a C++ compiler of the CPU understands it."""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fuse.losses import acb_kernel
from fuse.setting import Setting
from fuse.training.stacked_adam import KERNEL, SOURCE, StackedAdam
from fuse.training.trainer import fit_group
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.native import nvrtc
from tests.support.kernels import OnTheCpu
from tests.support.stacks import NAMES, SMALL, TASKS

MEMBERS, COUNT = 3, 1024 + 64


@pytest.fixture(scope="module")
def on_the_cpu(tmp_path_factory: pytest.TempPathFactory) -> OnTheCpu:
    return OnTheCpu(SOURCE, KERNEL, tmp_path_factory.mktemp("move"))


@pytest.mark.parametrize(
    ("decay", "clip", "averaged"), list(itertools.product([0.0, 0.1], [0.0, 0.5], [False, True]))
)
@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_the_kernel_moves_weights_as_the_operations_of_torch_do(
    on_the_cpu: OnTheCpu, optimiser: str, decay: float, clip: float, averaged: bool
) -> None:
    torch.manual_seed(0)
    setting = replace(Setting(), optimiser=optimiser, weight_decay=decay, clip=clip)
    given = [torch.randn(MEMBERS, COUNT) for _ in range(4)]
    given[2].abs_()
    plain, compiled = [of.clone() for of in given], [of.clone() for of in given]
    moves = [StackedAdam(setting, *of[:3], of[3] if averaged else None) for of in (plain, compiled)]
    moves[1]._kernel = on_the_cpu  # type: ignore[assignment]
    for step in range(3):
        gradients = torch.randn(MEMBERS, COUNT) * 0.02
        rates = torch.rand(MEMBERS, 5, 1) * torch.tensor([1.0, 1.0, 3.0, -0.1, 1.0])[:, None]
        for move in moves:
            move(gradients.clone(), rates)
        if step == 0:
            assert not torch.equal(plain[0], given[0])
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert torch.equal(plain[3], given[3]) != averaged


def test_the_kernel_clips_a_gradient_that_is_no_number_as_torch_does(on_the_cpu: OnTheCpu) -> None:
    setting = replace(Setting(), clip=0.5)
    gradients = torch.full((MEMBERS, COUNT), 0.01)
    gradients[1, 5] = torch.nan  # all weights of its member, or it would be trained half and half
    found: list[torch.Tensor] = []
    for kernel in (None, on_the_cpu):
        weights, means, squares = (torch.ones(MEMBERS, COUNT) for _ in range(3))
        moves = StackedAdam(setting, weights, means, squares, None)
        moves._kernel = kernel  # type: ignore[assignment]
        moves(gradients.clone(), torch.full((MEMBERS, 5, 1), 0.1))
        found.append(weights)
    assert found[1].isnan().all(1).tolist() == [False, True, False]
    torch.testing.assert_close(found[1], found[0], equal_nan=True)


@pytest.mark.parametrize("members", [1, 3])
def test_a_stack_learns_the_same_with_kernels(
    on_the_cpu: OnTheCpu,
    bank: FeatureBank,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    members: int,
) -> None:
    setting = replace(SMALL, clip=0.3, ema=0.7, head="", weight_decay=0.1)
    expected = fit_group(setting, bank, TASKS[:members], names=NAMES, stacked=True)
    of_loss = OnTheCpu(acb_kernel.SOURCE, acb_kernel.NAME, tmp_path)
    monkeypatch.setattr(
        "fuse.training.stacked_adam.kernel", lambda source, name, device: on_the_cpu
    )
    monkeypatch.setattr("fuse.losses.acb.find_kernel", lambda logits: of_loss)
    found = fit_group(setting, bank, TASKS[:members], names=NAMES, stacked=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(
            one.model.state_dict(), other.model.state_dict(), atol=2e-5, rtol=0
        )


# --- compiling ----------------------------------------------------------------------------------


class Library:
    """Notes what is called of the compiler and of the driver, and fails at one of it."""

    def __init__(self, failing: str = "") -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any) -> int:
            self.calls.append((name, given))
            if name in ("nvrtcGetCUBINSize", "nvrtcGetProgramLogSize"):
                given[1]._obj.value = 7
            if name == "nvrtcGetProgramLog":
                given[1].value = b"line 3"
            if name == "cuLaunchKernel":  # while what it points to is there
                pointer, number = given[9]
                read = ctypes.c_void_p.from_address(pointer).value
                self.arguments = read, ctypes.c_int.from_address(number).value
            return 6 if name == self._failing else 0

        return call


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    class Here:
        def __init__(self, device: torch.device) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *given: object) -> None:
            pass

    class Stream:
        cuda_stream = 5

        def synchronize(self) -> None:
            pass

    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("torch.cuda.device", Here)
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: Stream())
    nvrtc.kernel.cache_clear()
    return torch.device("cuda", 0)


def test_a_kernel_is_compiled_for_its_device_once_and_launched_in_its_stream(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library()
    monkeypatch.setattr("ctypes.CDLL", lambda path: library)
    found = nvrtc.kernel(SOURCE, KERNEL, device)
    assert found is nvrtc.kernel(SOURCE, KERNEL, device)
    assert found is not None
    assert [name for name, _ in library.calls] == [
        "nvrtcCreateProgram", "nvrtcCompileProgram", "nvrtcGetCUBINSize", "nvrtcGetCUBIN",
        "nvrtcDestroyProgram", "cuModuleLoadData", "cuModuleGetFunction",
    ]  # fmt: skip
    assert library.calls[1][1][2][0] == b"-arch=sm_90"
    assert len(library.calls[3][1][1]) == 7
    numbers = torch.ones(3)
    found((4, 2), 256, [numbers, 9])
    name, (_, *launched, stream, _, _) = library.calls[-1]
    assert (name, launched, stream.value) == ("cuLaunchKernel", [4, 2, 1, 256, 1, 1, 0], 5)
    assert library.arguments == (numbers.data_ptr(), 9)


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        ("nvrtcCompileProgram", "nvrtcCompileProgram gave the error 6: line 3"),
        ("cuModuleLoadData", "cuModuleLoadData gave the error 6"),
    ],
)
def test_torch_takes_the_place_of_a_kernel_that_does_not_compile(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, failing: str, reason: str
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda path: Library(failing))
    with pytest.warns(UserWarning, match=f"could not be compiled.*{reason}"):
        assert nvrtc.kernel(SOURCE, KERNEL, device) is None


def test_without_a_compiler_there_is_no_kernel(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(path: str) -> None:
        raise OSError(f"{path}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", missing)
    with pytest.warns(UserWarning, match=r"there is no libnvrtc\.so"):
        assert nvrtc.kernel(SOURCE, KERNEL, device) is None
    assert nvrtc.kernel(SOURCE, KERNEL, torch.device("cpu")) is None
