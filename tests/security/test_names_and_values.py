"""What callers in Python give: names that no file can have, values that are no texts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mmsa_cache.compose.predict.predictor import Predictor
from mmsa_cache.data.scan import single_sample
from mmsa_cache.errors import DataError, ModelError
from mmsa_cache.runs.folder import RunFolder

NAMES = ("a" * 5000, "a\0b", "\ud800", "/dev/zero", "..")


@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_file_has_are_no_runs_and_no_pictures(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="There is no run"):
        RunFolder.find(name)
    with pytest.raises(DataError, match="There is no picture"):
        single_sample("good", Path(name))


@pytest.mark.parametrize("text", [math.nan, 5, b"good", ["good"]])
def test_what_is_no_string_is_no_text(text: object) -> None:
    """Tables of pandas have NaN where there is nothing."""
    model = Predictor.__new__(Predictor)  # nothing of it is looked at before
    with pytest.raises(DataError, match="no string"):
        model.post(text, None)  # type: ignore[arg-type]
