"""Learning curves in one line."""

from __future__ import annotations

import pytest

from fuse.figures.records import EpochRecord
from mmsa_cache.cli.curves import ASCII, BLOCKS, WIDTH, curve_line, sparkline
from mmsa_cache.compose.report.charts import learning_curves


def test_a_curve_goes_from_the_lowest_to_the_highest_letter() -> None:
    assert sparkline([0.0, 0.5, 1.0, 7.0], "utf-8") == "▁▁▂█"
    assert sparkline([3.0, 2.0, 1.0], "utf-8") == "█▅▁"
    assert sparkline([0.4], "utf-8") == sparkline([2.0], "utf-8") == BLOCKS[0]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "latin-1"])
def test_a_terminal_without_blocks_gets_ascii(encoding: str) -> None:
    values = [float(k) for k in range(8)]
    assert sparkline(values, encoding) == ASCII
    assert sparkline(values, "utf-8") == BLOCKS


def test_long_curves_are_averaged() -> None:
    line = sparkline([float(k) for k in range(1000)], "utf-8")
    assert len(line) == WIDTH
    assert list(line) == sorted(line)
    assert (line[0], line[-1]) == (BLOCKS[0], BLOCKS[-1])


def history(members: int, epochs: int, **values: float | None) -> list[EpochRecord]:
    return [
        EpochRecord.model_validate(
            {"member": m, "epoch": e, "loss": 1 / e, "learning_rate": 0.1}
            | {"macro_f1": m * e / 10, "accuracy": 0.5}
            | values
        )
        for m in range(1, members + 1)
        for e in range(1, epochs + 1)
    ]


def test_the_line_has_the_mean_of_the_members() -> None:
    line = curve_line(learning_curves(history(3, 4)), "utf-8")
    assert line == (
        "Curves: loss 1.000 █▃▂▁ 0.250, macro-F1 0.200 ▁▃▆█ 0.800 (mean of 3 members, 4 epochs)"
    )
    assert curve_line(learning_curves(history(1, 2)), "ascii").endswith("_# 0.200 (2 epochs)")


def test_there_is_no_line_without_curves() -> None:
    assert curve_line([], "utf-8") == ""
    assert curve_line(learning_curves(history(2, 1)), "utf-8") == ""
