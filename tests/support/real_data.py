"""The MVSA-Single pairs, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL = Path(os.environ.get("MMSA_TEST_DATA", Path(__file__).parents[3] / "shared/data/mvsa"))
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real data is not on this machine")
