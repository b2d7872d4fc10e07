"""``mmsa bench store``."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmsa_cache.cli.main import app
from mmsa_cache.compose import bench_store
from mmsa_cache.compose.bench_store import SHARD_ROWS, StoreGrowth, StoreSize
from tests.support.command import COMMAND


def test_a_store_of_more_shards_than_a_process_may_have_files(tmp_path: Path) -> None:
    rows = 65 * SHARD_ROWS
    command = [*COMMAND, "bench", "store", "--rows", f"200,{rows}", "--json"]
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n 64; exec {shlex.join(command)}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = StoreGrowth.model_validate_json(done.stdout)
    assert found.generated is True
    small, large = found.sizes
    assert (small.rows, large.rows) == (200, rows)
    # Of a row: 12 positions and 4 pools of 16 numbers, 2 keys, 2 places, 2 bytes of no operation.
    a_row = 2 * 16 * (8 + 4 + 2 + 2) + 2 * (16 + 8 + 1)
    assert (large.bytes - small.bytes) / (rows - 200) == pytest.approx(a_row, rel=1e-3)
    assert (small.files, large.files) == (2, 2)
    for size in found.sizes:
        assert (size.open_files, size.bank_files) == (0, 0)
        assert min(value for key, value in size if key.endswith("_seconds")) > 0
    assert large.bank_peak_bytes > 2 * 2 * 2 * 16 * rows  # the pools are in memory
    (growth,) = found.growth
    assert growth["rows"] == rows / 200
    assert growth["bank_seconds"] == large.bank_seconds / small.bank_seconds
    assert "open_files" not in growth
    assert list(tmp_path.iterdir()) == []


def test_the_table_has_a_row_a_size_and_what_it_grew_by(monkeypatch: pytest.MonkeyPatch) -> None:
    def made_up(sizes: list[int]) -> StoreGrowth:
        fields = StoreSize.model_fields
        found = [StoreSize.model_validate(dict.fromkeys(fields, rows)) for rows in sizes]
        assert sizes == [200, 500]
        return StoreGrowth(sizes=found, growth=[{"rows": 2.5, "merge_seconds": 3.0}])

    monkeypatch.setattr(bench_store, "bench_store", made_up)
    result = CliRunner().invoke(app, ["bench", "store", "--rows", "200, 500"])
    assert result.exit_code == 0, result.output
    head, _, *lines = (line.split() for line in result.stdout.splitlines())
    assert head == list(StoreSize.model_fields)
    assert [len(line) for line in lines] == [len(head), 2, len(head)]
    assert lines[1] == ["×2.5", "×3"]
    assert "generated features" in result.stderr
    shown = CliRunner().invoke(app, ["bench", "store", "--rows", "200,500", "--json"])
    assert json.loads(shown.stdout)["sizes"][1]["rows"] == 500


@pytest.mark.parametrize("rows", ["", "0", "200,,400", "many", "200,-1"])
def test_what_is_no_list_of_counts_is_refused(rows: str) -> None:
    result = CliRunner().invoke(app, ["bench", "store", "--rows", rows])
    assert result.exit_code == 2
    assert f"--rows {rows!r} is no list of counts.\n" in result.stderr
    assert "Write it as --rows 200,400." in result.stderr
