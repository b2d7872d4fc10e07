"""mmsa as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-W", "error::UserWarning:mmsa_cache", "-m", "mmsa_cache"]


def mmsa(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == code, result.stderr
    return result
