"""Signals of a command."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_SECONDS_LATER = 0.02
"""Delay before a lost interrupt is raised again."""


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: orderly and resumable. No signal is lost."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timed = hasattr(signal, "setitimer")  # not on Windows
    numbers = (signal.SIGTERM, signal.SIGALRM) if timed else (signal.SIGTERM,)
    before = [signal.signal(number, interrupt) for number in numbers]
    hook_before = sys.unraisablehook

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        if timed and issubclass(lost.exc_type, KeyboardInterrupt):
            # It came within a finalizer, out of which nothing can be raised: it comes again.
            signal.setitimer(signal.ITIMER_REAL, _SECONDS_LATER)
        else:
            hook_before(lost)

    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook_before
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
