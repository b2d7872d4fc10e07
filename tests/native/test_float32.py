"""TF32 is off while float32 is computed on a GPU; the switches exist in builds for the CPU too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from extract.encoders.compute import precision
from mmsa_cache.native.float32 import WITHOUT_TF32

CUDNN: Any = torch.backends.cudnn


def switches() -> tuple[str, str]:
    return torch.backends.cuda.matmul.fp32_precision, CUDNN.conv.fp32_precision


@pytest.fixture
def _tf32() -> Iterator[None]:
    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    yield
    matmul.fp32_precision = before


@pytest.mark.usefixtures("_tf32")
def test_float32_on_a_gpu_is_computed_without_tf32() -> None:
    with precision(torch.device("cuda"), "float32"):
        assert switches() == ("ieee", "ieee")
    assert switches() == ("tf32", "tf32")
    assert torch.backends.cudnn.allow_tf32  # torch refuses to say where switches contradict


def test_the_last_thread_that_leaves_puts_the_switches_back() -> None:
    before = switches()
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with WITHOUT_TF32:
            inside.set()
            assert leave.wait(10)

    other = threading.Thread(target=work)
    with WITHOUT_TF32:
        other.start()
        assert inside.wait(10)
    assert switches() == ("ieee", "ieee")
    leave.set()
    other.join()
    assert switches() == before
    assert before[1] == "tf32"  # what torch does unless told otherwise
