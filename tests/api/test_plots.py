"""Plots of runs and studies: what is drawn is what the records say, on the axes that are given."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib.style
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import mmsa_cache as mmsa
from fuse.figures.reliability import reliability_bins
from fuse.figures.study import StudySnapshot
from mmsa_cache.api import plots
from mmsa_cache.compose.report.sections import prediction_intervals
from tests.support.made_up_run import CLASSES, change, invented_study, write_run

PLOTS = ("plot_confusion", "plot_classes", "plot_reliability", "plot_curves")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> mmsa.Run:
    return mmsa.Run(write_run(tmp_path_factory.mktemp("runs") / "made-up"))


@pytest.fixture
def study() -> StudySnapshot:
    return StudySnapshot.model_validate(invented_study())


@pytest.fixture
def ax() -> Axes:
    """Axes of a figure that pyplot knows nothing of."""
    return Figure().subplots()


def labels(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def points(ax: Axes) -> list[list[tuple[float, float]]]:
    """Of every line."""
    return [[*zip(*line.get_data(), strict=True)] for line in ax.lines]


def test_confusion_shows_counts_and_shares_of_the_true_class(run: mmsa.Run, ax: Axes) -> None:
    assert run.plot_confusion(ax) is ax
    counts = np.array(run.figures.outer.confusion)
    shares = counts / counts.sum(1, keepdims=True)
    assert np.allclose(ax.images[0].get_array(), shares)
    first = ax.texts[0]
    assert first.get_text() == f"{counts[0, 0]}\n{shares[0, 0]:.0%}"
    assert first.get_position() == (0, 0)
    assert labels(ax) == CLASSES


def test_classes_show_f1_with_the_intervals_of_the_report(run: mmsa.Run, ax: Axes) -> None:
    run.plot_classes(ax)
    found = prediction_intervals(run.predictions, CLASSES).per_class
    spans = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert spans == [[found[name].f1.low, found[name].f1.high] for name in CLASSES]
    assert points(ax) == [[(run.figures.outer.per_class[n].f1, k) for k, n in enumerate(CLASSES)]]


def test_a_class_without_rows_has_no_f1(run: mmsa.Run, ax: Axes) -> None:
    scores = run.figures.outer
    absent = scores.per_class["neutral"].model_copy(update={"support": 0})
    per_class = scores.per_class | {"neutral": absent}
    found = prediction_intervals(run.predictions, CLASSES)
    plots.plot_classes(scores.model_copy(update={"per_class": per_class}), found, ax)
    assert labels(ax) == ["positive", "negative"]


def test_reliability_shows_the_bins_of_the_report(run: mmsa.Run, ax: Axes) -> None:
    run.plot_reliability(ax)
    of = run.predictions
    right = of.labels == of.probabilities.argmax(1)
    bins, error = reliability_bins(of.probabilities.max(1), right)
    drawn = [(bar.get_x(), bar.get_height()) for bar in ax.patches]
    assert np.allclose(drawn, [(b.low, b.accuracy) for b in bins if b.rows])
    assert [text.get_text() for text in ax.texts] == [str(b.rows) for b in bins if b.rows]
    assert ax.get_title().endswith(f"{error:.3f}")


def test_curves_show_every_member_their_mean_and_the_kept_epochs(run: mmsa.Run, ax: Axes) -> None:
    run.plot_curves(ax, curve="loss")
    first, second, mean, kept = points(ax)
    assert first == [(1, 1), (2, 1 / 2), (3, 1 / 3)]
    assert second[3:] == [(4, 1 / 4), (5, 1 / 5)]
    assert mean == first  # up to the last epoch that both reached
    assert kept == [(2, 1 / 2)] * 2
    assert run.plot_curves(ax).get_ylabel() == "Macro F1, stopping rows"
    with pytest.raises(mmsa.SettingsError, match=r"'los' \(near: loss\)"):
        run.plot_curves(ax, curve="los")  # type: ignore[arg-type]
    with pytest.raises(mmsa.SettingsError, match="No member was watched"):
        plots.plot_curves([], ax=ax)


def test_history_shows_trials_by_how_they_ended(study: StudySnapshot, ax: Axes) -> None:
    plots.plot_history(study, ax)
    complete, failed, best, chosen = points(ax)
    assert complete == [(0, 0.5), (2, 0.55), (4, 0.52), (5, 0.6), (6, 0.58)]
    assert [number for number, _ in failed] == [3]
    assert best[-1] == (6, 0.6)
    assert chosen == [(5, 0.6)]
    assert ax.collections[0].get_offsets().tolist() == [[1, 0.4]]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["complete", "pruned", "failed", "best so far", "trial 5"]
    with pytest.raises(mmsa.SettingsError, match="no complete trial"):
        plots.plot_history(study.model_copy(update={"trials": []}), ax)


def test_importance_shows_medians_and_spreads(study: StudySnapshot, ax: Axes) -> None:
    plots.plot_importance(study.importance, ax)
    assert points(ax) == [[(0.7, 0), (0.3, 1)]]
    spans = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert spans == [[0.4, 0.9], [0.0, 0.6]]
    assert labels(ax) == ["fusion", "quick"]
    with pytest.raises(mmsa.SettingsError, match="ten complete trials"):
        plots.plot_importance([], ax)


def test_alpha_beta_shows_means_and_leaves_cells_without_trials_blank(
    study: StudySnapshot, ax: Axes
) -> None:
    plots.plot_alpha_beta(study.alpha_beta, ax)
    assert [text.get_text() for text in ax.texts] == ["0.520\n2", "", "", "0.600\n1"]
    shares = ax.images[0].get_array()
    assert np.ma.getmaskarray(shares).tolist() == [[False, True], [True, False]]
    assert labels(ax) == ["0.75", "0.5"]
    with pytest.raises(mmsa.SettingsError, match="adaptive loss"):
        plots.plot_alpha_beta([], ax)


def test_colours_are_those_of_the_report_until_a_style_sets_its_own(
    run: mmsa.Run, ax: Axes
) -> None:
    css = Path(plots.__file__).parents[1] / "compose/pages/shell.css"
    light = css.read_text(encoding="utf-8").partition("@media")[0]
    palette = dict(re.findall(r"--(\w+): (#\w+)", light))
    assert (palette["accent"], palette["second"]) == (plots.ACCENT, plots.SECOND)
    assert to_hex(run.plot_classes(ax).lines[0].get_color()) == plots.ACCENT
    with matplotlib.style.context("ggplot"):
        own = Figure().subplots()
        assert to_hex(run.plot_classes(own).lines[0].get_color()) == "#e24a33"


def test_names_of_anybody_are_drawn_as_they_are_and_not_as_formulas(tmp_path: Path) -> None:
    names = ["$x_{", "a\x1b[31m\nb", "long " * 40]
    run = mmsa.Run(write_run(tmp_path / "run", names))
    for name in PLOTS:
        figure = Figure()
        ax = getattr(run, name)(figure.subplots())
        figure.draw_without_rendering()
    assert labels(run.plot_classes(ax)) == ["$x_{", "a\\x1b[31m\\nb", f"{'long ' * 5}"[:24] + "…"]


def test_pyplot_is_used_only_where_no_axes_are_given(
    run: mmsa.Run, ax: Axes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "subplots", lambda **how: (None, ax))
    assert run.plot_confusion() is ax
    monkeypatch.delattr(matplotlib, "pyplot")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for name in PLOTS:
        assert getattr(run, name)(ax) is ax
    with pytest.raises(mmsa.SettingsError, match=r"pip install 'mmsa\[plots\]'"):
        run.plot_confusion()


def test_a_run_and_its_figures_are_tables_in_a_notebook(run: mmsa.Run, tmp_path: Path) -> None:
    other = mmsa.Run(write_run(tmp_path / "<script>", ["<b>", "&amp;", "c"]))
    change(other.path / "config.json", notes=["<i>drawn</i>"])
    page = other._repr_html_()
    assert "<script>" not in page
    assert "<i>" not in page
    assert "Note: &lt;i&gt;drawn&lt;/i&gt;" in page
    assert "f1 of &lt;b&gt;" in page
    assert "f1 of &amp;amp;" in page
    figures = run.figures
    assert f'<td style="text-align: left">{figures.outer.accuracy:.3f}</td>' in run._repr_html_()
    assert "macro_f1" in figures._repr_html_()
    intervals = prediction_intervals(run.predictions, CLASSES)
    known = figures.model_copy(update={"intervals": intervals})
    assert str(intervals.macro_f1) in known._repr_html_()


def test_a_table_in_a_notebook_is_short() -> None:
    from mmsa_cache.notebook import as_html

    page = as_html("t", {"long": "x" * 1000, "none": None}, ["a"], [[n] for n in range(100)])
    assert "x" * 301 not in page
    assert "none" not in page
    assert page.count("<tr>") == 1 + 1 + 24 + 1
    assert "… and 76 more" in page
