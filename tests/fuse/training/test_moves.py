"""The CUDA kernel that moves weights, as a C++ compiler of the CPU understands it."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fuse.setting import Setting
from fuse.training.moves import KERNEL, SOURCE, Moves
from mmsa_cache.native import nvrtc

MEMBERS, COUNT = 3, 1024 + 64
BEFORE = """
#include <cmath>
#define __global__
#define __device__
struct Index { int x, y; };
static Index blockIdx, blockDim, threadIdx;
"""
AFTER = """
extern "C" void run(int blocks, int members, int threads, float** p, int* i) {
    blockDim.x = threads;
    for (blockIdx.y = 0; blockIdx.y < members; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
            for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
                move((Four*)p[0], (Four*)p[1], (Four*)p[2], (Four*)p[3], (Four*)p[4],
                     p[5], p[6], p[7], i[0], i[1], i[2], i[3]);
}
"""


class OnTheCpu:
    """Launches the kernel thread by thread."""

    def __init__(self, folder: Path) -> None:
        source, library = folder / "move.cpp", folder / "move.so"
        source.write_text(BEFORE + SOURCE + AFTER)
        compiler = shutil.which("c++")
        assert compiler is not None
        command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-o", library, source]
        subprocess.run(command, check=True, capture_output=True)
        self._library = ctypes.CDLL(str(library))

    def __call__(
        self, grid: tuple[int, int], threads: int, arguments: Sequence[Tensor | int]
    ) -> None:
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        numbers = [a for a in arguments if not isinstance(a, Tensor)]
        assert all(a.is_contiguous() and a.dtype == torch.float32 for a in tensors)
        pointers = (ctypes.c_void_p * len(tensors))(*(a.data_ptr() for a in tensors))
        self._library.run(*grid, threads, pointers, (ctypes.c_int * len(numbers))(*numbers))


@pytest.fixture(scope="module")
def on_the_cpu(tmp_path_factory: pytest.TempPathFactory) -> OnTheCpu:
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    return OnTheCpu(tmp_path_factory.mktemp("move"))


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
    moves = [Moves(setting, *of[:3], of[3] if averaged else None) for of in (plain, compiled)]
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
    assert library.calls[1][1][2][0] == b"--gpu-architecture=sm_90"
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
