"""Puts faults into files one at a time and runs the tests that reach the line.

A file's tests are collected once. Each fault is a fork of that process in which the code of the
functions is exchanged, so that it costs no import; what is run when a module is imported is
exchanged before it is imported, in a process of its own. A fork that takes three times as long as
the tests do has seen it.
"""

from __future__ import annotations

import ast
import gc
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType

import pytest
from _pytest.runner import runtestprotocol

from .faults import Fault, faults
from .known import EQUIVALENT, TESTS, Known

ROOT = Path(__file__).resolve().parents[2]
_NOT_SEEN = 3
_OPTIONS = [
    "-q",
    "--assert=plain",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-p",
    "no:faulthandler",
]


def run_file(source: str, share: float, seconds: float, seed: int = 0) -> dict[str, list[str]]:
    """Names of the faults of a file by what became of them: found, missed, equivalent, not run."""
    end = time.monotonic() + seconds
    path = ROOT / source
    every = faults(path)
    chosen = [f for f in every if random.Random(f"{seed}{f.line}{f.what}").random() < share]
    results: dict[str, list[str]] = defaultdict(list)
    known = EQUIVALENT.get(source, ())
    wanted = []
    for fault in chosen:
        if _known(fault, known):
            results["equivalent"].append(fault.what)
        else:
            wanted.append(fault)
    inner = [fault for fault in wanted if fault.function]
    outer = [fault for fault in wanted if not fault.function]
    read, write = os.pipe()
    with _fork() as child:
        if child is None:
            plugin = _Series(path, inner, end, write)
            _quietly(lambda: pytest.main([*_OPTIONS, *TESTS[source]], plugins=[plugin]))
        os.close(write)
        with os.fdopen(read) as lines:
            for line in lines:
                name, _, what = line.rstrip("\n").partition(" ")
                results[name].append(what)
    if sum(map(len, results.values())) < len(chosen) - len(outer) and not results["red"]:
        results["red"].append("its tests could not be run")
    for fault in () if results["red"] else outer:
        if time.monotonic() > end:
            results["not run"].append(_named(fault))
            continue
        code = _ended(lambda fault=fault: _with_module(path, fault, TESTS[source]), 240)
        results["missed" if code == 0 else "found"].append(_named(fault))
    return results


def _named(fault: Fault) -> str:
    return f"{fault.line}: {fault.what}"


def _known(fault: Fault, known: tuple[Known, ...]) -> bool:
    return any(entry.what in fault.what for entry in known)


class _fork:  # noqa: N801
    """A child that ends with the block; `None` in it."""

    def __enter__(self) -> int | None:
        self.child = os.fork()
        return self.child or None

    def __exit__(self, *_: object) -> None:
        if not self.child:
            os._exit(0)
        os.waitpid(self.child, 0)


def _quietly(work: Callable[[], int]) -> int:
    null = os.open(
        os.environ.get("MUTANTS_LOG", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT
    )
    os.dup2(null, 1)
    os.dup2(null, 2)
    code = int(work())
    sys.stdout.flush()
    return code


def _ended(work: Callable[[], int], seconds: float) -> int:
    """Exit status of a fork that does some work; it is ended with all its children when late."""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        code = 1
        try:
            code = _quietly(work)
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        late = time.monotonic() > end
        if done or late:
            for signal_ in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(child, signal_)
                except ProcessLookupError:
                    break
                time.sleep(0.05)
            if not done:
                os.waitpid(child, 0)
                return 124
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)


class _Series:
    """In place of pytest's run of the collected tests: all faults, each in a fork."""

    def __init__(self, path: Path, wanted: list[Fault], end: float, pipe: int) -> None:
        self.path, self.wanted, self.end, self.pipe = path, wanted, end, pipe

    def _tell(self, name: str, what: str) -> None:
        os.write(self.pipe, f"{name} {what}\n".encode())

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        reached = self._reached(session.items)
        if reached is None:
            self._tell("red", "the tests fail without a fault")
            return True
        for fault in self.wanted:
            if time.monotonic() > self.end:
                self._tell("not run", _named(fault))
                continue
            near = [
                (seconds, number)
                for number, (seconds, lines) in reached.items()
                if fault.line in lines
            ]
            items = [session.items[number] for _, number in sorted(near)]
            limit = 3 * sum(seconds for seconds, _ in near) + 20
            code = _ended(lambda f=fault, i=items: self._with(f, i), limit)
            self._tell(
                "missed" if code == 0 else "unreached" if code == _NOT_SEEN else "found",
                _named(fault),
            )
        return True

    def _reached(self, items: list[pytest.Item]) -> dict[int, tuple[float, set[int]]] | None:
        """Seconds and lines of the file by test, from a run without faults in a fork."""
        read, write = os.pipe()

        def work() -> int:
            failed = 0
            for number, item in enumerate(items):
                lines: set[int] = set()
                began = time.monotonic()
                with _traced(str(self.path), lines):
                    failed |= _fails(item, _next(items, number))
                row = f"{number} {time.monotonic() - began:.3f} {' '.join(map(str, lines))}\n"
                os.write(write, row.encode())
            return failed

        rows: list[str] = []
        reader = threading.Thread(target=lambda: rows.extend(os.fdopen(read)))
        reader.start()
        code = _ended(work, 600)
        os.close(write)
        reader.join()
        if code:
            return None
        split = [row.split() for row in rows]
        return {int(n): (float(s), {int(line) for line in lines}) for n, s, *lines in split}

    def _with(self, fault: Fault, items: list[pytest.Item]) -> int:
        if not items:
            return _NOT_SEEN
        _exchange(self.path, fault)
        return int(any(_fails(item, _next(items, number)) for number, item in enumerate(items)))


def _next(items: list[pytest.Item], number: int) -> pytest.Item | None:
    return items[number + 1] if number + 1 < len(items) else None


def _fails(item: pytest.Item, after: pytest.Item | None) -> bool:
    reports = runtestprotocol(item, nextitem=after, log=bool(os.environ.get("MUTANTS_LOG")))
    return any(report.failed for report in reports)


class _traced:  # noqa: N801
    """Collects the lines of a file that are run."""

    def __init__(self, path: str, lines: set[int]) -> None:
        self.path, self.lines = path, lines

    def _call(self, frame: object, event: str, _: object) -> object:
        if frame.f_code.co_filename != self.path:
            return None
        self.lines.add(frame.f_lineno)
        return self._line

    def _line(self, frame: object, event: str, _: object) -> object:
        self.lines.add(frame.f_lineno)
        return self._line

    def __enter__(self) -> None:
        sys.settrace(self._call)
        threading.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _compiled(path: Path, fault: Fault) -> CodeType:
    return compile(ast.fix_missing_locations(fault.tree), str(path), "exec", dont_inherit=True)


def _exchange(path: Path, fault: Fault) -> None:
    """Puts the code of the fault's functions where that of the loaded ones is."""
    new = {(c.co_qualname, c.co_firstlineno): c for c in _codes(_compiled(path, fault))}
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename == str(path):
            code = thing.__code__
            thing.__code__ = new[(code.co_qualname, code.co_firstlineno)]


class _Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one file with a fault."""

    def __init__(self, path: Path, fault: Fault) -> None:
        self.path, self.fault = path, fault
        self.name = ".".join(path.relative_to(ROOT).with_suffix("").parts)

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def exec_module(self, module: object) -> None:
        exec(_compiled(self.path, self.fault), module.__dict__)


def _with_module(path: Path, fault: Fault, tests: tuple[str, ...]) -> int:
    sys.meta_path.insert(0, _Loader(path, fault))
    return int(pytest.main([*_OPTIONS, "-x", *tests]))
