"""Features in a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsa_cache.features.bank import FeatureBank
from tests.support.bank_sources import make_bank


@pytest.fixture
def bank(tmp_path: Path) -> FeatureBank:
    return make_bank(tmp_path / "store")
