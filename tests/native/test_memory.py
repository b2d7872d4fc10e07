"""Memory that is kept for the next batch, and memory that is given back."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries have no such options"
)

_COMMON = """
import resource, threading
import numpy as np
from mmsa_cache.native.memory import reuse_blocks, use_one_heap

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def batches(count):
    for _ in range(count):
        np.ones(8 << 20)  # 64 MiB
"""


def measured(script: str) -> list[int]:
    """The numbers that a process of its own prints: these options hold for a whole process."""
    command = [sys.executable, "-c", _COMMON + script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [int(word) for word in done.stdout.split()]


def test_freed_memory_is_used_again_inside_and_given_back_after() -> None:
    outside, inside, grown, after = measured(
        """
batches(1)
start = faults()
batches(10)
print(faults() - start)
before = resident()
with reuse_blocks():
    batches(1)
    start = faults()
    batches(10)
    print(faults() - start)
    print(resident() - before)
print(resident() - before)
"""
    )
    pages = (64 << 20) // 4096
    assert inside < pages / 10
    assert outside > inside + pages / 100  # else this shows nothing
    assert grown > 60 << 20
    assert after < 8 << 20


@pytest.mark.parametrize("share", [True, False])
def test_threads_share_the_heap(share: bool) -> None:
    """What a thread allocates lies in the process's heap, the segment that all begin with."""
    inside, count = measured(
        f"""
if {share}:
    use_one_heap()
kept = []
thread = threading.Thread(target=lambda: kept.extend(bytes(64 << 10) for _ in range(1000)))
thread.start()
thread.join()
with open("/proc/self/maps") as file:
    (place,) = [line.split()[0] for line in file if line.rstrip().endswith("[heap]")]
first, last = (int(end, 16) for end in place.split("-"))
print(sum(first <= id(block) < last for block in kept), len(kept))
"""
    )
    assert count == 1000
    assert inside == (1000 if share else 0)


@pytest.mark.parametrize("returned", [True, False])
def test_large_blocks_between_used_ones_are_returned(returned: bool) -> None:
    (kept,) = measured(
        f"""
from mmsa_cache.native.memory import return_blocks
if {returned}:
    return_blocks()
np.ones(2 << 20)  # 16 MiB: from now on glibc takes such blocks from its heap
before = resident()
large, small = [], []
for _ in range(20):
    large.append(np.ones(2 << 20))
    small.append(bytes(64 << 10))
large.clear()
print(resident() - before)
"""
    )
    assert (kept < 16 << 20) == returned
