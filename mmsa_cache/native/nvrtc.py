"""Kernels that are compiled on the machine they run on, by the compiler that comes with CUDA.

torch has functions for this (`torch.cuda._compile_kernel`), but they are private, differ from
version to version and want the CUDA toolkit.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DRIVER = "libcuda.so.1"


class Kernel:
    """A kernel on a device.

    Args:
        driver: The library that launches it.
        function: What it launches.
        device: Where.
    """

    def __init__(self, driver: Any, function: ctypes.c_void_p, device: torch.device) -> None:
        self._driver, self._function, self._device = driver, function, device

    def __call__(
        self, grid: tuple[int, int], threads: int, arguments: Sequence[Tensor | int]
    ) -> None:
        """Launches it in the current stream; it does not wait.

        Args:
            grid: Blocks.
            threads: Of a block.
            arguments: Of the kernel: pointers to the numbers of tensors, and `int`.

        Raises:
            RuntimeError: It was not launched.
        """
        values = [
            ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_int(a)
            for a in arguments
        ]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        with torch.cuda.device(self._device):
            stream = ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
            _check(
                self._driver.cuLaunchKernel(
                    self._function, *grid, 1, threads, 1, 1, 0, stream, pointers, None
                ),
                "cuLaunchKernel",
            )


@cache
def kernel(source: str, name: str, device: torch.device) -> Kernel | None:
    """Compiles a kernel for a device, once a process.

    Args:
        source: In CUDA's C++; what is called `name` is ``extern "C"``.
        name: Of the kernel.
        device: Where it is to run.

    Returns:
        None anywhere but on a CUDA device, and with a warning where it cannot be compiled.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    try:
        return _compiled(source, name, device)
    except (OSError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        warnings.warn(
            f"The CUDA kernel {name} could not be compiled; torch's own, which are slower, take "
            f"its place: {reason}",
            stacklevel=2,
        )
        return None


def _compiled(source: str, name: str, device: torch.device) -> Kernel:
    compiler, driver = _compiler(), ctypes.CDLL(_DRIVER)
    major, minor = torch.cuda.get_device_capability(device)
    options = (ctypes.c_char_p * 1)(f"-arch=sm_{major}{minor}".encode())
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    _check(
        compiler.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), f"{name}.cu".encode(), 0, None, None
        ),
        "nvrtcCreateProgram",
    )
    try:
        status = compiler.nvrtcCompileProgram(program, 1, options)
        _check(status, "nvrtcCompileProgram", _log(compiler, program) if status else "")
        _check(compiler.nvrtcGetCUBINSize(program, ctypes.byref(size)), "nvrtcGetCUBINSize")
        code = ctypes.create_string_buffer(size.value)
        _check(compiler.nvrtcGetCUBIN(program, code), "nvrtcGetCUBIN")
    finally:
        compiler.nvrtcDestroyProgram(ctypes.byref(program))
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    with torch.cuda.device(device):
        torch.cuda.current_stream(device).synchronize()  # the device has a context from here on
        _check(driver.cuModuleLoadData(ctypes.byref(module), code), "cuModuleLoadData")
    found = driver.cuModuleGetFunction(ctypes.byref(function), module, name.encode())
    _check(found, "cuModuleGetFunction")
    return Kernel(driver, function, device)


def _compiler() -> Any:
    """The library of torch's version of CUDA: loaded with torch, beside it, or on the system."""
    version = (torch.version.cuda or "0").partition(".")[0]
    file = f"libnvrtc.so.{version}"
    beside = sorted(Path(torch.__file__).parents[1].glob(f"nvidia/*/lib/{file}"))
    for path in (file, *map(str, beside)):
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    raise OSError(f"there is no {file}")


def _log(compiler: Any, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    compiler.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    compiler.nvrtcGetProgramLog(program, log)
    return f": {log.value.decode(errors='replace')}"


def _check(status: int, call: str, more: str = "") -> None:
    if status:
        raise RuntimeError(f"{call} gave the error {status}{more}")
