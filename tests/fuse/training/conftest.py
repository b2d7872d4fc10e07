"""Generated features."""

from __future__ import annotations

import pytest

from mmsa_cache.features.bank import FeatureBank
from tests.support.stacks import make_bank


@pytest.fixture(scope="module")
def bank() -> FeatureBank:
    return make_bank()
