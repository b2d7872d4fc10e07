"""Makes Python look as on macOS or Windows: what they lack is taken away before anything runs.

Python imports it at its start where ``PYTHONPATH`` names its folder, in workers too.
"""

import errno
import importlib.abc
import multiprocessing.context
import os
import shutil
import signal
import sys

MODULES = ("fcntl", "resource", "pwd", "grp", "termios")
SYSTEM = (
    *("sched_getaffinity", "sched_setaffinity", "fork", "forkpty", "getuid", "geteuid", "getgid"),
    *("setsid", "killpg", "getpgid", "getloadavg", "pread", "symlink", "process_cpu_count"),
    *("O_PATH", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC"),
)
SIGNALS = ("pthread_sigmask", "setitimer", "SIGALRM", "SIGHUP", "ITIMER_REAL")
FOLDERS = ("/proc", "/sys", "/dev/fd")


def _is_of_psutil() -> bool:
    """Whether psutil asks, whose part for this system needs what is there."""
    frame = sys._getframe(2)
    while frame.f_back and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__")).startswith("psutil")


class _Gone(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name in MODULES and not _is_of_psutil():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _without_folders(call):  # type: ignore[no-untyped-def]
    """A call of `os` that takes paths alone."""

    def checked(path, *values, **named):  # type: ignore[no-untyped-def]
        if any(named.pop(key, None) is not None for key in ("dir_fd", "src_dir_fd", "dst_dir_fd")):
            raise NotImplementedError("dir_fd unavailable on this platform")
        place = os.fspath(path) if not isinstance(path, int) else ""
        if str(place).startswith(FOLDERS) and not _is_of_psutil():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)
        if call is opens and isinstance(place, str) and os.path.isdir(place):  # noqa: PTH112
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)
        return call(path, *values, **named)

    return checked


def _kill(number: int, sent: int) -> None:
    assert sent, "on Windows it ends the process"
    kills(number, sent)


opens, kills = os.open, os.kill
sys.meta_path.insert(0, _Gone())
for module in MODULES:
    sys.modules.pop(module, None)
for owner, names in ((os, SYSTEM), (signal, SIGNALS)):
    for gone in names:
        if hasattr(owner, gone):
            delattr(owner, gone)
for name in ("open", "stat", "unlink", "rmdir", "mkdir", "replace", "link", "rename"):
    setattr(os, name, _without_folders(getattr(os, name)))
os.kill = _kill
os.supports_dir_fd, os.supports_follow_symlinks, os.supports_fd = set(), set(), set()
shutil._use_fd_functions = False
contexts = multiprocessing.context._concrete_contexts
multiprocessing.context._default_context._default_context = contexts["spawn"]
multiprocessing.get_all_start_methods = lambda: ["spawn"]
for method in ("fork", "forkserver"):
    contexts.pop(method)
