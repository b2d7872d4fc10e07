"""What the system denies a process: memory, permissions, locks, a clock that goes forwards."""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mmsa_cache.files import locks

_CAPABILITIES = 0x20080522
"""Version of the structure that capset takes."""


@dataclass(frozen=True)
class Conditions:
    """Under which a process goes on."""

    folder: str = "."
    """Where it works."""
    environ: dict[str, str] = field(default_factory=dict)
    """Variables, those of the shim among them (``shim.c``)."""
    spare: int | None = None
    """Bytes of address space beside those it has."""
    powerless: bool = False
    """Whether root must heed permissions as everybody must."""
    nobody: bool = False
    """Whether the system does not know its user."""
    lease: float | None = None
    """Seconds after which a lease has expired, where there is no ``flock``."""
    seconds: int = 120
    """After which it is killed."""

    def enter(self) -> None:
        """Puts this process under them."""
        os.chdir(self.folder)
        os.environ.update(self.environ)
        if self.lease is not None:
            locks._LEASE, locks._LOOK = self.lease, self.lease / 8
        signal.alarm(self.seconds)
        if self.powerless and os.geteuid() == 0:
            libc = ctypes.CDLL(None, use_errno=True)
            header, nothing = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
            assert libc.capset(header, nothing) == 0, os.strerror(ctypes.get_errno())
        if self.nobody:
            pwd.getpwuid = _unknown
        if self.spare is not None:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + self.spare, -1))


def _unknown(number: int) -> pwd.struct_passwd:
    raise KeyError(f"getpwuid(): uid not found: {number}")


def compiled_shim(folder: Path) -> dict[str, str | None]:
    """The variables that preload ``shim.c``; skips the test where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    made = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(made)}
