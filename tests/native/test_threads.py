from __future__ import annotations

import sys

import pytest

from mmsa_cache.native.threads import short_turns


def test_turns_are_short_inside_and_as_before_afterwards() -> None:
    before = sys.getswitchinterval()
    with short_turns():
        assert sys.getswitchinterval() == pytest.approx(2e-4)
    with pytest.raises(KeyError), short_turns():
        raise KeyError
    assert sys.getswitchinterval() == before
