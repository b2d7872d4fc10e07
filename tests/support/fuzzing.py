"""Fuzzing without a library: seeds of numbers, mutations of valid files, hundreds a second.

Examples run in a fork with a bound on its memory and on the time of each, since much of what they
reach is C: a crash or a hang is a failure like any other.
"""

from __future__ import annotations

import copy
import gc
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmsa_cache.errors import MmsaError
from tests.support.faulty import fork

Random = random.Random
Make = Callable[[Random], Any]
ROOM = 4 << 30
"""Bytes of address space beside what is there at the start; libraries reserve some without use."""
GROWTH = 200 << 20
"""Bytes of memory that a series may add at its peak."""
SECONDS = 3.0
"""Processor time of one example."""
_KILLED = 30
"""Seconds of processor time of one example after which the process is killed."""
_MOST_SHOWN = 8
TAKEN = "taken"
EXAMPLES = pytest.mark.parametrize("examples", [10, pytest.param(5000, marks=pytest.mark.faults)])
HELD = "own errors only, bounded memory and time"


def series(
    examples: int,
    make: Make,
    work: Callable[[Any], object],
    *,
    own: tuple[type[Exception], ...] = (MmsaError,),
    growth: int = GROWTH,
    room: int = ROOM,
) -> str:
    """Tries ``work`` on contents; fails with the numbers of those that broke it.

    Args:
        examples: How many; number n is made of ``random.Random(n)``.
        make: Makes one.
        work: May raise an error of ``own``.
        own: Errors that are answers.
        growth: Most bytes of memory that all of them add.
        room: See `ROOM`.

    Returns:
        What held, and how many were taken.
    """
    place = mmap.mmap(-1, 8)
    with tempfile.NamedTemporaryFile("r") as said, tempfile.NamedTemporaryFile("r") as printed:

        def all_of_them() -> None:
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  (pytest has another)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
            resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            gc.freeze()  # so that looking for garbage is quick
            if "torch" in sys.modules:  # of the threads that it had, none is here
                sys.modules["torch"].set_num_threads(1)
            before, taken = _peak(), 0
            broken: dict[str, str] = {}
            for number in range(examples):
                place[:] = number.to_bytes(8, "little")
                if number % 50 == 0:  # an error's frames hold what was read
                    gc.collect()
                key, shown = _tried(make(Random(number)), work, own)
                taken += key == TAKEN
                if shown and key not in broken and len(broken) < _MOST_SHOWN:
                    broken[key] = f"example {number}: {shown}"
            if _peak() - before > growth:
                broken["memory"] = f"{(_peak() - before) >> 20} MiB more at the peak"
            Path(said.name).write_text(json.dumps([taken, *broken.values()]))

        _, status = os.waitpid(fork(all_of_them, Path(printed.name)), 0)
        code = os.waitstatus_to_exitcode(status)
        last = int.from_bytes(place[:], "little")
        assert code == 0, f"example {last} ended the process: {code}; {printed.read()[-3000:]}"
        taken, *broken = json.loads(Path(said.name).read_text())
        assert not broken, "\n".join(broken)
    return f"{examples - taken} refused, {taken} taken; {HELD}"


def _tried(
    content: Any, work: Callable[[Any], object], own: tuple[type[Exception], ...]
) -> tuple[str, str]:
    """What one example broke: a name that is the same for the same fault, and the words; of one
    that broke nothing, whether it was taken."""
    signal.setitimer(signal.ITIMER_PROF, _KILLED)
    start = time.process_time()
    key, shown = TAKEN, ""
    try:
        work(content)
    except own as error:
        key = ""
        if len(str(error)) > 150_000:
            key, shown = "long", f"a message of {len(str(error))} characters"
    except (Exception, KeyboardInterrupt) as error:
        frames = traceback.extract_tb(error.__traceback__)
        key = f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}"
        lines = [f"{frame.filename.split('site-packages/')[-1]}:{frame.lineno}" for frame in frames]
        shown = f"{type(error).__name__}: {str(error)[:300]}\n    {' < '.join(lines[::-1][:12])}"
    signal.setitimer(signal.ITIMER_PROF, 0)
    seconds = time.process_time() - start
    if seconds > SECONDS and not shown:
        key, shown = "slow", f"{seconds:.1f} s"
    return key, shown


def _peak() -> int:
    """Bytes of this process at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


TOKENS = (
    *(b"\0", b"\n", b"\r", b'"', b",", b"=", b"[", b"{", b"../..", b"/etc/passwd", b"~x/y"),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\\ud800", b"nan", b"-inf", b"1e999"),
    *(b"9" * 400, b"[" * 3000, b"a" * 3000, b"null", b"true", b"%00", b"\x1b[31m", b"'" * 3),
)
_SIZES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62)


def mutated(chosen: Random, sources: Sequence[bytes], tokens: Sequence[bytes] = TOKENS) -> bytes:
    """A source with bits, numbers and pieces changed, removed, doubled or put in, or cut off."""
    data = bytearray(chosen.choice(sources))
    for _ in range(chosen.choice((1, 1, 1, 2, 3, 6))):
        at = chosen.randrange(len(data) + 1)
        if chosen.random() < 0.5:  # what a file says of itself is at its ends
            edge = chosen.randrange(min(len(data), 160) + 1)
            at = edge if chosen.random() < 0.5 else len(data) - edge
        until = min(len(data), at + chosen.randrange(40))
        what = chosen.randrange(8)
        if what == 0 and at < len(data):
            data[at] ^= 1 << chosen.randrange(8)
        elif what == 1:
            data[at:until] = chosen.randbytes(until - at)
        elif what == 2:
            del data[at:until]
        elif what == 3:
            data[at:at] = data[at:until] * chosen.randrange(1, 30)
        elif what == 4:
            data[at:at] = chosen.choice(tokens)
        elif what == 5:
            _set_number(chosen, data, at)
        elif what == 6:
            other = chosen.choice(sources)
            data[at:until] = other[at : at + chosen.randrange(200)]
        elif chosen.random() < 0.3:
            del data[at:]
    return bytes(data)


def _set_number(chosen: Random, data: bytearray, at: int) -> None:
    width = chosen.choice((1, 2, 4, 8))
    order: Any = chosen.choice(("little", "big"))
    if at + width <= len(data):
        before = int.from_bytes(data[at : at + width], order)
        value = chosen.choice((*_SIZES, before + 1, before - 1, before * 2, len(data)))
        data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, order)


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 1 << 31, 1 << 63, -(1 << 64), 10**30, 0.5, -0.0, 1e-320),
    *(1e308, 1e999, float("nan"), -1e999, "", "x", "x" * 3000, "../x", "/etc/passwd", "a\0b"),
    *("\ud800", "\x1b[31m", "<script>", "é", "nan", "1", "hf://a/b", "s3://a/b", "~x/y"),
    *([], {}, [[]], {"": {}}, [None], [1, "a"], {"a": 1}),
)
"""Values of every kind; those that JSON has not are written as Python's library writes them."""


def altered(chosen: Random, document: Any) -> Any:
    """A JSON document with values changed, removed, added, moved or said twice."""
    whole = [json.loads(json.dumps(document))]
    for _ in range(chosen.choice((1, 1, 1, 2, 4))):
        inside: Any = whole
        while True:
            keys = [*inside] if isinstance(inside, dict) else [*range(len(inside))]
            if not keys:
                break
            key = chosen.choice(keys)
            deeper = inside[key]
            if not isinstance(deeper, dict | list) or (deeper and chosen.random() < 0.12):
                _alter(chosen, inside, key, whole)
                break
            inside = deeper
    return whole[0] if whole else None


def _alter(chosen: Random, inside: Any, key: Any, whole: list[Any]) -> None:
    what, copied = chosen.randrange(8), copy.deepcopy(inside[key])
    if what < 4:
        inside[key] = copy.deepcopy(chosen.choice(ODD))
    elif what == 4 and isinstance(inside[key], int | float):
        inside[key] = inside[key] * chosen.choice((-1, 2, 0.5, 1000)) + chosen.choice((0, 1))
    elif what == 5:
        del inside[key]
    elif what == 6 and isinstance(inside, dict):
        inside[chosen.choice(("x", "", "a\0b", f"{key}2", str(key).upper()))] = copied
    elif isinstance(inside, list) and inside is not whole:
        inside.insert(chosen.randrange(len(inside) + 1), copied)
    else:
        inside[key] = chosen.choice(([copied], {"x": copied}, str(copied)))


def json_bytes(chosen: Random, document: Any) -> bytes:
    """An altered document, now and then with its bytes changed too."""
    data = json.dumps(altered(chosen, document)).encode()
    return mutated(chosen, [data]) if chosen.random() < 0.2 else data


def tensors(chosen: Random, data: bytes) -> bytes:
    """A safetensors file with another header: its JSON changed, its length, or its bytes."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if chosen.random() < 0.3:
        return mutated(chosen, [data[: 8 + length]]) + body
    changed = altered(chosen, header)
    if chosen.random() < 0.4 and isinstance(changed, dict):
        of = chosen.choice([*header])
        if isinstance(changed.get(of), dict):
            changed[of]["shape"] = chosen.choice(
                ([], [0], [1 << 62, 4], [2, 3], [16], [1, 1, 1, 64])
            )
            changed[of]["dtype"] = chosen.choice(
                ("F32", "F16", "BF16", "I64", "U8", "BOOL", "F4", "x")
            )
    text = json.dumps(changed).encode()
    size = chosen.choice((len(text), len(text), len(text), len(text) + 8, 0, 1 << 40))
    return (
        struct.pack("<Q", size)
        + text
        + body[: chosen.choice((len(body), len(body), len(body) - 4, 0))]
    )
