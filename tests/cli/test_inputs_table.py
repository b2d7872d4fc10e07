"""Every kind of input, with the right reading or the right message; see `tests.support.inputs`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from extract.inputs.decode import decode
from mmsa_cache.config.loading import load_settings
from mmsa_cache.data.pairs import read_sample_picture
from mmsa_cache.data.scan import SplitScan, scan_split
from tests.support.data_folders import mmsa
from tests.support.inputs import READ, REFUSED, Input
from tests.support.inputs.bad import BAD, FATAL
from tests.support.inputs.build import Row


@pytest.fixture
def source(given: Input, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The input, made in a folder of its own; keys that are no options are variables."""
    for name, value in given.variables.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "given"
    root.mkdir()
    given.build(root)
    return f"given/{given.at}"


@pytest.mark.parametrize("given", READ, ids=lambda given: given.name)
def test_an_input_is_read_right_with_the_settings_that_init_writes(
    given: Input, source: str, tmp_path: Path
) -> None:
    mmsa(tmp_path, "init", source, *given.flags, "--yes")
    seen = json.loads(mmsa(tmp_path, "check", "--json").stdout)
    assert seen["problems"] == []
    for part, values in given.seen.items():
        assert {key: seen[part][key] for key in values} == values
    notes = "\n".join(seen["notes"])
    assert [part for part in given.notes if part not in notes] == []
    data = load_settings(folder=tmp_path, environ=given.variables).data
    found = {split["split"]: scan_split(data, split["split"]) for split in seen["splits"]}
    for rows in found.values():
        assert rows.bad == []
    assert {name: read(rows) for name, rows in found.items()} == given.rows
    if given.pixels is not None:
        odd = max(found["train"].samples, key=lambda sample: sample.guid == "odd")
        assert given.pixels(decode(read_sample_picture(odd), "odd"))


@pytest.mark.parametrize("given", REFUSED, ids=lambda given: given.name)
def test_what_is_wrong_with_an_input_is_said(given: Input, source: str, tmp_path: Path) -> None:
    seen = json.loads(mmsa(tmp_path, "check", source, *given.flags, "--json", code=3).stdout)
    said = [problem["message"] for problem in seen["problems"]]
    assert len(said) == len(given.problems), said
    for part, message in zip(given.problems, said, strict=True):
        assert part in message if given not in FATAL else part == message
    bad = [problem for problem in seen["problems"] if not problem["fatal"]]
    assert ", ".join(problem["reason"] for problem in bad) == given.reason
    if given in BAD:
        assert [problem["guid"] for problem in bad] == ["odd"]
        assert [(split["rows"], split["bad"]) for split in seen["splits"]] == [(7, 1)]


def read(found: SplitScan) -> list[Row]:
    """The good rows."""
    classes = found.listing.classes
    return [
        (row.guid, None if row.label is None else classes[row.label], row.text or None)
        for row in found.samples
    ]
