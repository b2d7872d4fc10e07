"""mmsa as a process of its own."""

from __future__ import annotations

import sys

COMMAND = [sys.executable, "-W", "error::UserWarning:mmsa_cache", "-m", "mmsa_cache"]
