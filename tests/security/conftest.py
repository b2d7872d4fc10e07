"""What several tests of hostile files begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fake_search import run, start_thread


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a finished study of three trials."""
    folder = tmp_path_factory.mktemp("searched")
    run(folder / "s.db", folder, 3, start=start_thread)
    return folder / "s.db"
