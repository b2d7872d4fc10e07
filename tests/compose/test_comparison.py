"""The page that compares runs, and the tables of both pages."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score

from fuse.evidence.comparison import Comparison
from fuse.figures.predictions import Predictions
from fuse.figures.record import Interval
from mmsa_cache.compose.predict.compare import compare_runs
from mmsa_cache.compose.report.comparison_page import (
    POSTS,
    disagreement_rows,
    drop_duplicates,
    render_comparison,
)
from mmsa_cache.compose.report.gallery import GalleryPost
from mmsa_cache.compose.report.page import Page as Rendered
from mmsa_cache.compose.report.tables import MOST_ROWS, SIGNED, ReportTable, shown
from mmsa_cache.runs.folder import RunFolder
from tests.support.made_up_run import (
    CLASSES,
    HOSTILE,
    ROWS,
    change,
    explained,
    outcome,
    write_other_run,
    write_run,
)
from tests.support.pages import Page, cells
from tests.support.reports import render

SECTIONS = ["figures-of", "differences-of", "settings-of", "classes-of", "confusion", "posts"]
LABELS, FIRST, SHARES = outcome()
OTHER_SHARES = SHARES.copy()
OTHER_SHARES[::3] = np.roll(SHARES[::3], 1, axis=1)
OTHER = OTHER_SHARES.argmax(1)


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, RunFolder]:
    first, other = write_run(tmp_path / "first"), write_other_run(tmp_path / "other")
    return {"first": RunFolder(first), "other": RunFolder(other)}


def compared(runs: dict[str, RunFolder]) -> Comparison:
    return compare_runs([*runs], [*runs.values()]).comparison


def rendered(runs: dict[str, RunFolder], posts: dict[str, GalleryPost] | None = None) -> Rendered:
    return render_comparison(runs, compared(runs), posts or {}, ["The data are invented."])


def test_every_section_is_there_and_the_page_is_well_formed(runs: dict[str, RunFolder]) -> None:
    page = Page(rendered(runs).html)
    assert set(page.ids) >= set(SECTIONS)
    assert len(page.ids) == len(set(page.ids))
    assert [attrs["href"] for attrs in page.named("a")] == [f"#{name}" for name in SECTIONS]
    assert "The data are invented." in page.text
    assert not page.named("script")
    boxes = [attrs for attrs in page.named("div") if attrs.get("class") == "scroll"]
    assert len(boxes) == len(page.named("table")) == 7


def test_figures_are_those_of_the_predictions(runs: dict[str, RunFolder]) -> None:
    html = rendered(runs).html
    figures = {row[0]: row[1:] for row in cells(html, "figures")}
    for place, codes in ((0, FIRST), (2, OTHER)):
        assert figures["Accuracy"][place] == f"{accuracy_score(LABELS, codes):.3f}"
        assert figures["Macro F1"][place] == f"{f1_score(LABELS, codes, average='macro'):.3f}"
    classes = {row[0]: row[1:] for row in cells(html, "classes")}
    for code, name in enumerate(CLASSES):
        each = [f1_score(LABELS, of, average=None)[code] for of in (FIRST, OTHER)]
        assert [classes[name][1], classes[name][3]] == [f"{value:.3f}" for value in each]
        assert classes[name][0] == str((code == LABELS).sum())


def test_differences_are_paired_and_tested(runs: dict[str, RunFolder]) -> None:
    (row,) = cells(rendered(runs).html, "differences")[1:]
    gain = accuracy_score(LABELS, OTHER) - accuracy_score(LABELS, FIRST)
    assert row[:3] == ["first", "other", f"{gain:+.3f}".replace("-", "−")]
    only = [int(((a == LABELS) & (b != LABELS)).sum()) for a, b in ((FIRST, OTHER), (OTHER, FIRST))]
    assert float(row[6].replace("−", "-")) == pytest.approx(
        binomtest(only[0], sum(only)).pvalue, rel=0.01
    )
    assert cells(rendered(runs).html, "disagreements")[1][2:4] == [str(count) for count in only]


def test_several_pairs_have_corrected_p_values(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    html = rendered(runs | {"third": RunFolder(write_run(tmp_path / "third"))}).html
    header, *rows = cells(html, "differences")
    assert header[-1] == "p, Holm"
    assert [row[:2] for row in rows] == [["first", "other"], ["first", "third"], ["other", "third"]]
    assert rows[1][-1] == "1"
    assert "Holm’s correction is for 3 pairs" in Page(html).text


def test_matrices_stand_side_by_side_in_one_order_of_classes(runs: dict[str, RunFolder]) -> None:
    html = rendered(runs).html
    for number, codes in ((1, FIRST), (2, OTHER)):
        header, *rows = cells(html, f"confusion-{number}")
        assert header[1:] == CLASSES
        for code, row in enumerate(rows):
            of = np.bincount(codes[code == LABELS], minlength=3)
            assert row[1:] == [f"{count}{100 * count / of.sum():.1f}%" for count in of]


def test_only_settings_that_differ_are_shown(runs: dict[str, RunFolder]) -> None:
    rows = {row[0]: row[1:] for row in cells(rendered(runs).html, "settings")}
    assert rows["fusion"] == ["concat", "gated"]
    assert rows["seed"] == ["47", "48"]
    assert not {"dropout", "folds", "text encoder"} & rows.keys()
    alike = {"one": runs["first"], "two": RunFolder(runs["first"].path)}
    assert "The recorded settings of the runs are equal." in Page(rendered(alike).html).text


def test_posts_on_which_all_runs_are_sure_come_first(
    runs: dict[str, RunFolder], tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (50, 50), "red").save(picture)
    html = rendered(
        runs, {str(row): GalleryPost(f"post {row}", picture) for row in range(ROWS)}
    ).html
    sure = np.minimum(SHARES.max(1), OTHER_SHARES.max(1))
    expected = sorted(np.flatnonzero(FIRST != OTHER), key=lambda row: (-sure[row], str(row)))
    guids = re.findall(r'<p class="guid"><bdi>(\d+)</bdi>', html)
    assert guids == [str(row) for row in expected[:POSTS]]
    page = Page(html)
    assert f"The runs differ on {len(expected)} rows. Here are the {POSTS} posts" in page.text
    assert len(page.named("img")) == POSTS
    top = expected[0]
    card = page.text[page.text.index(f"post {top}") :][:400]
    assert f"true {CLASSES[LABELS[top]]}" in card
    assert f"first {CLASSES[FIRST[top]]}" in card
    assert f"other {CLASSES[OTHER[top]]}" in card
    assert "positive {:.3f} neutral {:.3f} negative {:.3f}".format(*OTHER_SHARES[top]) in re.sub(
        "\xa0", " ", card
    )


def test_the_least_sure_run_counts() -> None:
    shares = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2]])
    others = np.array([[0.45, 0.55], [0.2, 0.8], [0.3, 0.7], [0.9, 0.1]])
    zeros = np.zeros(4, np.int64)
    runs = [Predictions([*"abcd"], zeros, of.argmax(1), of) for of in (shares, others)]
    assert disagreement_rows(runs).tolist() == [2, 1, 0]
    assert disagreement_rows([runs[0], runs[0]]).tolist() == []


def test_a_repeated_post_is_shown_once() -> None:
    zeros, places = np.zeros(5, np.int64), np.array([4, 2, 0, 3])
    run = Predictions([*"abcde"], zeros, zeros, np.ones((5, 1)), np.array([7, 1, 3, 3, 7]))
    assert drop_duplicates(places, run).tolist() == [4, 2]
    assert drop_duplicates(places, replace(run, groups=None)).tolist() == places.tolist()


def test_hostile_names_texts_and_settings_are_shown_as_text(tmp_path: Path) -> None:
    classes = [HOSTILE, "b<i>", "c"]
    runs = {HOSTILE: RunFolder(write_run(tmp_path / "a", classes))}
    runs["b"] = RunFolder(write_run(tmp_path / "b", classes))
    change(
        tmp_path / "b" / "config.json",
        models=[{"setting": {HOSTILE: HOSTILE}, "dims": {"text": 4, "image": 4, "vectors": {}}}],
    )
    html = rendered(runs, {str(row): GalleryPost(HOSTILE, None) for row in range(ROWS)}).html
    page = Page(html)
    assert "<script" not in html
    assert "<i>" not in html
    assert page.text.count(HOSTILE) > 10
    assert "The runs agree on every post." in page.text


# --- tables --------------------------------------------------------------------------------------


def test_a_table_is_shown_with_three_decimals_and_written_whole() -> None:
    table = ReportTable(
        "t",
        "c",
        ["name", "value", "span", "p"],
        [["=1+1", 1 / 3, Interval(-0.25, 0.125), 1e-7], ["b", None, None, 1.0]],
        {"p": ".3g"},
    )
    assert table.shown() == [["=1+1", "0.333", "−0.250 … +0.125", "1e−07"], ["b", "–", "–", "1"]]
    rows = [*csv.reader(io.StringIO(table.csv()))]
    assert rows[0] == ["name", "value", "span, low", "span, high", "p"]
    assert rows[1][0] == "'=1+1", "a spreadsheet would compute it"
    assert [float(cell) for cell in rows[1][1:]] == [1 / 3, -0.25, 0.125, 1e-7]
    assert rows[2] == ["b", "", "", "", "1.0"]


def test_numbers_have_a_real_minus_and_differences_a_sign() -> None:
    assert shown(-0.5) == "−0.500"
    assert shown(0.5, SIGNED) == "+0.500"
    assert shown(Interval(0.1, 0.2)) == "0.100–0.200"
    assert shown(Interval(0.1, 0.2), SIGNED) == "+0.100 … +0.200"
    assert shown(7) == "7"
    assert shown(None) == "–"


def test_a_long_table_is_cut_on_the_page_and_whole_in_its_file(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    studies = (run / "studies.json").read_text()
    one = '{"number": 0, "state": "complete", "score": 0.5}'
    many = ", ".join(one.replace("0,", f"{n},", 1) for n in range(MOST_ROWS + 5))
    (run / "studies.json").write_text(
        re.sub(r'"trials": \[\{.*?\]', f'"trials": [{many}]', studies, count=1)
    )
    html = render(run, {})
    assert len(cells(html, "study-1-trials")) == 1 + MOST_ROWS
    assert f"The first {MOST_ROWS} of {MOST_ROWS + 5} rows; mmsa report --csv writes all." in html


@pytest.mark.parametrize("several", [False, True])
def test_every_chart_has_its_numbers_beneath(
    runs: dict[str, RunFolder], tmp_path: Path, several: bool
) -> None:
    html = rendered(runs).html if several else render(tmp_path / "first", {}, explain=explained)
    # Of a figure, what comes next that is no figure, no caption and no close of a box.
    after = re.split(r"</figure>", html)[1:]
    passed = re.compile(r'(\s|</div>|<div class="pair">|<p class="caption">.*?</p>)*', re.DOTALL)
    assert len(after) >= (7 if several else 6)
    for part in after:
        rest = part[passed.match(part).end() :]  # type: ignore[union-attr]
        assert rest.startswith(("<figure", '<div class="table"', "<details>\n<summary>The numbers"))
