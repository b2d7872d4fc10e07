"""CUDA kernels as a C++ compiler of the CPU understands them."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor

_BEFORE = """
#include <barrier>
#include <cmath>
#include <memory>
#include <thread>
#include <vector>
#define __global__
#define __device__
#define __shared__ static
struct Index { int x, y; };
static Index blockIdx, blockDim;
static thread_local Index threadIdx;
static std::unique_ptr<std::barrier<>> together;
static void __syncthreads() { together->arrive_and_wait(); }
"""
_AFTER = """
extern "C" void run(int blocks, int members, int threads, void** a) {
    blockDim.x = threads;
    for (blockIdx.y = 0; blockIdx.y < members; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
            auto one = [=](int place) { threadIdx.x = place; NAME(ARGUMENTS); };
            if (WAITS) {
                together = std::make_unique<std::barrier<>>(threads);
                std::vector<std::thread> all;
                for (int place = 0; place < threads; ++place) all.emplace_back(one, place);
                for (auto& thread : all) thread.join();
            } else {
                for (int place = 0; place < threads; ++place) one(place);
            }
        }
}
"""


class OnTheCpu:
    """Launches a kernel, a block after the other; to be called as `nvrtc.Kernel`.

    Args:
        source: In CUDA's C++.
        name: Of the kernel.
        folder: Where it is compiled.
    """

    def __init__(self, source: str, name: str, folder: Path) -> None:
        compiler = shutil.which("c++")
        if compiler is None:
            pytest.skip("there is no C++ compiler")
        given = re.search(rf"void {name}\(([^)]*)\)", source)
        assert given is not None
        kinds = [of.strip().rpartition(" ")[0] for of in given[1].split(",")]
        arguments = ", ".join(f"*({kind}*)a[{place}]" for place, kind in enumerate(kinds))
        waits = str("__syncthreads" in source).lower()
        after = _AFTER.replace("NAME", name).replace("ARGUMENTS", arguments)
        code, library = folder / f"{name}.cpp", folder / f"{name}.so"
        code.write_text(_BEFORE + source + after.replace("WAITS", waits), encoding="utf-8")
        options = ["-std=c++20", "-O1", "-pthread", "-shared", "-fPIC", "-o", library, code]
        subprocess.run([compiler, *options], check=True, capture_output=True)
        self._run, self._kinds = ctypes.CDLL(str(library)).run, kinds

    def __call__(
        self, grid: tuple[int, int], threads: int, arguments: Sequence[Tensor | int]
    ) -> None:
        """See `nvrtc.Kernel`."""
        values: list[ctypes.c_void_p | ctypes.c_int] = []
        for kind, argument in zip(self._kinds, arguments, strict=True):
            assert isinstance(argument, Tensor) == kind.endswith("*")
            if isinstance(argument, Tensor):
                assert argument.is_contiguous()
                values.append(ctypes.c_void_p(argument.data_ptr()))
            else:
                values.append(ctypes.c_int(argument))
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        self._run(*grid, threads, pointers)
