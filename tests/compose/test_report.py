"""The report of a run: its figures computed again, its page as a browser reads it."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from extract.inputs.decode import PictureLimits
from fuse.figures.metrics import probability_score, score
from fuse.figures.records import EpochRecord, MemberRecord
from fuse.figures.study import LossWeights, StudySnapshot
from mmsa_cache.compose.report.attention import AttentionMaps, PostAttention
from mmsa_cache.compose.report.charts import (
    class_colours,
    learning_curves,
    search_history,
    surface,
    ticks,
)
from mmsa_cache.compose.report.gallery import GalleryPost
from mmsa_cache.compose.report.sections import LossSection
from mmsa_cache.errors import ModelError
from tests.support.made_up_run import (
    CLASSES,
    HOSTILE,
    ROWS,
    SECTIONS,
    against,
    change,
    encoder_fields,
    explained,
    invented_study,
    model_of,
    outcome,
    outer_of,
    shares,
    write_run,
)
from tests.support.pages import Page, cells
from tests.support.reports import render


def whole(run: Path, posts: dict[str, GalleryPost]) -> str:
    """The report with everything that it can show."""
    return render(run, posts, against=against(), explain=explained)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "made-up")


@pytest.fixture
def posts(tmp_path: Path) -> dict[str, GalleryPost]:
    picture = tmp_path / "picture.png"
    Image.new("RGBA", (500, 250), (200, 40, 40, 128)).save(picture)
    return {str(row): GalleryPost(f"invented post {row}", picture) for row in range(ROWS)}


def test_every_section_is_there_and_the_page_is_well_formed(
    run: Path, posts: dict[str, GalleryPost]
) -> None:
    page = Page(whole(run, posts))
    assert set(page.ids) >= {*SECTIONS, "duplicates", "attention"}
    assert len(page.ids) == len(set(page.ids))
    links = [attrs["href"] for attrs in page.named("a")]
    assert links == [f"#{section}" for section in SECTIONS]
    for part in (
        "Run made-up",
        "/invented/data",
        "tiny-text",
        "tiny-image",
        "340",
        "quick, trial 7",
    ):
        assert part in page.text
    for part in (
        "mmsa train --study quick",
        "concat",
        "2.13.0",
        "−0.200",
        "With and without calibration",
    ):
        assert part in page.text
    assert "1000 resamples" in page.text


def test_the_page_asks_no_host_and_runs_no_script(run: Path, posts: dict[str, GalleryPost]) -> None:
    html = whole(run, posts)
    page = Page(html)
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert not page.named("script")
    assert not page.named("link")
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], tag
        assert (attrs.get("src") or "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
        assert (attrs.get("href") or "#").startswith("#")
    policy = next(a for a in page.named("meta") if a.get("http-equiv"))
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_every_picture_has_a_text_alternative(run: Path, posts: dict[str, GalleryPost]) -> None:
    page = Page(whole(run, posts))
    assert all(attrs["alt"] for attrs in page.named("img"))
    charts = page.named("svg")
    assert len(charts) == 1 + 3 + 2 + 1 + 4 + 16
    for attrs in charts:
        assert attrs["role"] == "img"
        assert set((attrs["aria-labelledby"] or "").split()) <= set(page.ids)
    assert len(page.named("title")) == len(charts) + 1
    assert len(page.named("desc")) == len(charts)


def test_every_table_scrolls_in_a_box_of_its_own(run: Path) -> None:
    duplicates = {"rows": 2, "guids": ["0", "1"]}
    change(run / "metrics.json", duplicates=duplicates, outer_without_duplicates=outer_of(2))
    page = Page(whole(run, {}))
    boxes = [a for a in page.named("div") if a.get("class") == "scroll"]
    assert len(boxes) == len(page.named("table")) == 14
    assert all(a["tabindex"] == "0" and a["role"] == "region" for a in boxes)


def test_light_and_dark_are_both_there(run: Path) -> None:
    html = whole(run, {})
    assert "@media screen and (prefers-color-scheme: dark)" in html
    light, dark = re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    names = [set(re.findall(r"(--[\w-]+):", part)) for part in (light, dark)]
    assert names[0] == names[1]
    assert set(re.findall(r"var\((--[\w-]+)\)", html)) - names[0] == {"--c", "--share"}


def test_hostile_texts_guids_classes_and_commands_are_shown_as_text(tmp_path: Path) -> None:
    classes = [HOSTILE, "b\n,<i>", "c" * 300]
    guids = [f"{HOSTILE}{row}" for row in range(ROWS)]
    run = write_run(tmp_path / "run", classes, guids)
    (run / "command.txt").write_text(f"mmsa {HOSTILE}", encoding="utf-8")
    change(
        run / "config.json",
        notes=[HOSTILE],
        outer=HOSTILE,
        models=[model_of(**{HOSTILE: HOSTILE, "fusion": HOSTILE})],
        encoder_fields=encoder_fields(HOSTILE, HOSTILE),
        studies=[{"name": HOSTILE, "trial": 1, "score": None}],
        settings={"data": {"root": HOSTILE}},
    )
    change(run / "env.json", packages={HOSTILE: HOSTILE}, device=HOSTILE)
    (run / "studies.json").write_text(json.dumps([invented_study(HOSTILE)]), encoding="utf-8")
    html = render(
        run,
        {guid: GalleryPost(HOSTILE, tmp_path / HOSTILE) for guid in guids},
        HOSTILE,
        against=against(classes, guids),
        explain=lambda names: explained(names, (HOSTILE, "x")),
    )
    page = Page(html)
    assert "<script" not in html
    assert "<i>" not in html
    assert not page.named("script")
    assert page.text.count(HOSTILE) > 60
    assert f"mmsa {HOSTILE}" in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;" in html
    for _, attrs in page.tags:  # a quote that got out of an attribute would show here
        assert not {name for name in attrs if "script" in name or "alert" in name}


def test_a_hostile_guid_stays_inside_the_alternative_text(
    tmp_path: Path, posts: dict[str, GalleryPost]
) -> None:
    guids = [f'" onerror="alert(1){HOSTILE}{row}' for row in range(ROWS)]
    run = write_run(tmp_path / "run", guids=guids)
    page = Page(render(run, dict(zip(guids, posts.values(), strict=True))))
    pictures = page.named("img")
    assert len(pictures) == 16
    assert all(set(a) == {"src", "width", "height", "alt"} for a in pictures)
    assert all(HOSTILE in (a["alt"] or "") for a in pictures)


def test_what_utf8_or_html_cannot_hold_is_replaced(
    run: Path, posts: dict[str, GalleryPost]
) -> None:
    image = posts["0"].image
    html = render(run, {guid: GalleryPost("a\x00b\x1b[0m\ud800c", image) for guid in posts})
    html.encode("utf-8")
    assert "a\ufffdb\ufffd[0m\ufffdc" in html
    assert "\x00" not in html


def test_the_page_shows_the_interval_of_1000_resamples(run: Path) -> None:
    labels, predicted, _ = outcome()
    generator = np.random.default_rng(0)
    hits = labels == predicted
    drawn = [hits[generator.integers(0, ROWS, ROWS)].mean() for _ in range(1000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert f"accuracy {hits.mean():.3f} ( {low:.3f}–{high:.3f} )" in Page(render(run, {})).text


def test_the_page_shows_the_calibration_error(run: Path) -> None:
    labels, predicted, probabilities = outcome()
    confidence, error = probabilities.max(axis=1), 0.0
    for number in range(10):
        inside = (confidence > number / 10) & (confidence <= (number + 1) / 10)
        if inside.any():
            right = (labels == predicted)[inside].mean()
            error += inside.mean() * abs(right - confidence[inside].mean())
    assert f"Expected calibration error {error:.3f} :" in Page(render(run, {})).text


def test_the_mean_curve_ends_where_the_first_member_stops() -> None:
    history = [
        EpochRecord(
            member=m, epoch=e, loss=float(m + e), learning_rate=0.1, accuracy=0.5, macro_f1=0.5
        )
        for m, epochs in ((1, 2), (2, 4))
        for e in range(1, epochs + 1)
    ]
    member = MemberRecord(
        member=2, best_epoch=3, training_rows=1, stopping_rows=1, macro_f1=0.5, accuracy=0.5
    )
    charts = learning_curves(history, [member])
    assert [chart.key for chart in charts] == ["loss", "macro_f1", "accuracy"]
    assert charts[0].mean == [(1, 2.5), (2, 3.5)]
    assert [len(line) for line in charts[0].lines] == [2, 4]
    assert charts[0].marks == [(3, 5.0)]
    assert charts[0].epochs == 4


@pytest.mark.parametrize(
    "values",
    [[0.0], [0.5, 0.5], [0.612, 0.683], [1e-6, 3e-6], [-3.0, 250.0], [0.1, 0.3], [1.0, 1.0]],
)
def test_ticks_hold_the_values(values: list[float]) -> None:
    found = ticks(values)
    assert 2 <= len(found) <= 7
    assert found[0] <= min(values) + 1e-9
    assert found[-1] >= max(values) - 1e-9
    assert np.allclose(np.diff(found), found[1] - found[0])


def test_sentiments_keep_their_colours_in_any_order() -> None:
    own = {"positive": 0, "neutral": 1, "negative": 2}
    assert class_colours(["negative", "positive", "neutral"]) == own
    mixed = class_colours(["angry", "negative", *(str(n) for n in range(20))])
    assert mixed["negative"] == 2
    assert all(0 <= colour < 8 for colour in mixed.values())
    assert [name for name, colour in mixed.items() if colour == 2] == ["negative"]


def test_only_the_outer_score_is_needed(run: Path) -> None:
    outer = json.loads((run / "metrics.json").read_text("utf-8"))["outer"]
    (run / "metrics.json").write_text(json.dumps({"outer": outer}), encoding="utf-8")
    (run / "metrics.jsonl").write_text("", encoding="utf-8")
    (run / "studies.json").unlink()
    change(run / "config.json", studies=[], settings={"data": {"root": None}})
    page = Page(render(run, {}))
    assert set(page.ids) >= set(SECTIONS)
    assert "no member was scored by epoch" in page.text
    assert "made before duplicates were recorded" in page.text
    assert not {"results-calibration", "results-offset-values", "members"} & set(page.ids)
    assert "Training rows" not in page.text
    assert "the setting was not searched" in page.text


def test_without_members_the_curves_stay(run: Path) -> None:
    change(run / "metrics.json", members=..., calibration=None)
    page = Page(render(run, {}))
    assert "curves" in page.ids
    assert "members" not in page.ids
    assert "results-calibration" in page.ids
    assert "Ring:" not in page.text


def test_a_single_member_of_a_single_epoch_is_drawn(run: Path) -> None:
    line = (run / "metrics.jsonl").read_text("utf-8").splitlines()[0]
    (run / "metrics.jsonl").write_text(line, encoding="utf-8")
    page = Page(render(run, {}))
    assert "The only member." in page.text


def test_random_weights_and_notes_stand_beside_every_table(run: Path) -> None:
    change(
        run / "config.json",
        notes=["The data are synthetic."],
        encoder_fields={
            modality: fields | ({"weights": "random:47"} if modality == "text" else {})
            for modality, fields in encoder_fields().items()
        },
    )
    html = render(run, {})
    random = "Random weights: text encoder not pretrained."
    captions = re.findall(r'<p class="caption" id=.*?</p>', html, re.DOTALL)
    assert len(captions) == html.count("<table")
    for caption in captions:
        assert "The data are synthetic." in caption
        assert random in caption
    top = html[html.index("<header>") : html.index("</header>")]
    assert top.index("The data are synthetic.") < top.index(random) < top.index("Macro F1")


def test_trained_encoders_carry_no_caveat(run: Path) -> None:
    assert 'class="caveat"' not in render(run, {})


def test_every_figure_stands_beside_its_interval(run: Path) -> None:
    labels, _, probabilities = outcome()
    found = probability_score(labels, shares(probabilities), CLASSES).as_json()
    rows = {row[0]: row[1:] for row in cells(render(run, {}), "results-figures")}
    assert rows["ROC-AUC"][0] == f"{found['roc_auc']:.3f}"
    assert rows["Log-loss"][0] == f"{-found['neg_log_loss']:.3f}"
    assert rows["Weighted F1"][0] == f"{found['weighted_f1']:.3f}"
    for name, (value, interval) in list(rows.items())[1:]:
        low, high = map(float, interval.split("–"))
        assert low <= high, name
        if name != "Calibration error (ECE)":
            assert low <= float(value) <= high, name
    classes = cells(render(run, {}), "results-classes")
    expected = found["per_class"]["neutral"]["average_precision"]
    assert classes[2][6] == f"{expected:.3f}"


def test_rows_with_a_duplicate_in_training_are_told_apart(run: Path) -> None:
    without = outer_of(10)
    guids = [str(row) for row in range(10)]
    change(
        run / "metrics.json",
        duplicates={"rows": 10, "guids": guids},
        outer_without_duplicates=without,
    )
    html = render(run, {})
    assert "10 of the 90 outer rows duplicate a training post" in Page(html).text
    rows = cells(html, "results-duplicates")
    assert rows[0][1] == "All 90 rows"
    assert rows[0][3] == "Without, 80 rows"
    assert rows[1][3] == f"{without['accuracy']:.3f}"
    low, high = map(float, rows[1][4].split("–"))
    assert low < without["accuracy"] < high
    change(run / "metrics.json", duplicates={"rows": 0, "guids": []})
    assert "None of the 90 outer rows duplicates a training post" in Page(render(run, {})).text


def test_recalls_of_two_runs_and_their_difference(run: Path) -> None:
    labels, predicted, _ = outcome()
    rows = cells(whole(run, {}), "recall-figures")
    assert rows[0][2:4] == ["other (ce)", "made-up (acb)"]
    for code, name in enumerate(CLASSES):
        inside = labels == code
        other = np.where(np.arange(ROWS) % 2, predicted, (labels + 1) % 3)
        values = [(found == labels)[inside].mean() for found in (other, predicted)]
        assert rows[code + 1][:4] == [name, str(inside.sum()), *(f"{v:.3f}" for v in values)]
        signed = f"{values[1] - values[0]:+.3f}".replace("-", "−")
        assert rows[code + 1][4] == signed
        low, high = (float(x.replace("−", "-")) for x in rows[code + 1][5].split(" … "))
        assert low <= values[1] - values[0] <= high


def test_without_a_second_run_the_page_says_how_to_get_one(run: Path) -> None:
    missing = LossSection("No run differs in the loss only.", "mmsa train --set loss=ce")
    text = Page(render(run, {}, against=missing)).text
    assert "No run differs in the loss only." in text
    assert "mmsa train --set loss=ce" in text
    assert "recall-figures" not in Page(render(run, {}, against=missing)).ids


def test_the_search_history_keeps_what_each_trial_came_to() -> None:
    history = search_history(StudySnapshot.model_validate(invented_study()))
    assert history is not None
    assert history.pruned == [(1, 0.4)]
    assert history.failed == [3]
    assert history.best == [(0, 0.5), (2, 0.5), (2, 0.55), (5, 0.55), (5, 0.6), (6, 0.6)]
    assert history.chosen == (5, 0.6)
    nothing = invented_study() | {"trials": [{"number": 0, "state": "fail", "score": None}]}
    assert search_history(StudySnapshot.model_validate(nothing)) is None


def test_the_surface_has_a_cell_for_each_pair_or_bins_of_many() -> None:
    few = surface(StudySnapshot.model_validate(invented_study()).alpha_beta)
    assert few is not None
    assert (few.alphas, few.betas) == (["0.25", "0.5"], ["0.75", "0.5"])
    assert few.cells[0][1] is None
    assert few.cells[1][0] is None
    assert few.cells[0][0] is not None
    assert few.cells[0][0].share == 0
    points = [
        LossWeights(alpha=a / 100, beta=1 - a / 100, trials=1 + a % 2, mean=a / 100, best=0.9)
        for a in range(100)
    ]
    many = surface(points)
    assert many is not None
    assert len(many.alphas) == len(many.betas) == 8
    assert sum(cell.trials for row in many.cells for cell in row if cell) == 150
    corner = many.cells[0][0]  # lowest α, highest β
    assert corner is not None
    inside = points[:13]
    weighted = sum(p.mean * p.trials for p in inside) / sum(p.trials for p in inside)
    assert corner.mean == pytest.approx(weighted)
    assert surface([]) is None


def test_a_study_is_shown_with_what_it_is_worth_outside(run: Path) -> None:
    page = Page(render(run, {}))
    assert "5 complete trials, 1 pruned, 1 failed" in page.text
    assert "an optimism gap of +0.030 (−0.010 … +0.070)" in page.text
    assert cells(render(run, {}), "study-1-fusions")[1] == ["encoder", "0.600", "5", "3", "3"]
    (run / "studies.json").unlink()
    assert "was not kept with this run" in Page(render(run, {})).text


def test_a_small_study_says_nothing_of_importance(run: Path) -> None:
    few = invented_study() | {"importance": [], "alpha_beta": [], "by_fusion": [], "judged": None}
    failed = few | {"trials": [{"number": 0, "state": "fail", "score": None}]}
    (run / "studies.json").write_text(json.dumps([few, failed]), encoding="utf-8")
    page = Page(render(run, {}))
    assert page.text.count("Importance needs at least ten complete trials.") == 2
    assert page.text.count("No complete trial used the adaptive loss.") == 2
    assert len(page.ids) == len(set(page.ids))


def test_each_word_has_a_picture_of_its_attention(run: Path, posts: dict[str, GalleryPost]) -> None:
    words = tuple(f"w{k}" for k in range(12))
    page = Page(render(run, posts, explain=lambda guids: explained(guids, words)))
    maps = [a for a in page.named("img") if "Attention of the word" in (a["alt"] or "")]
    assert len(maps) == 16 * 8
    # Half of the attention on one cell of 16, the rest even: 0.5 · 16 + 0.5.
    assert maps[0]["alt"] == (
        "Attention of the word “w0”: at most 8.5 times a uniform share, top left"
    )
    assert "4 words with more uniform attention are not shown" in page.text
    for attrs, bright in ((maps[0], (0, 0)), (maps[7], (1, 3))):
        data = base64.b64decode((attrs["src"] or "").partition(",")[2])
        with Image.open(io.BytesIO(data)) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.float64)
        colour = pixels[..., 0] - pixels[..., 2]  # grey has none
        means = colour.reshape(4, 16, 4, 16).mean(axis=(1, 3))
        assert np.unravel_index(means.argmax(), (4, 4)) == bright


def test_even_attention_is_left_grey(run: Path, posts: dict[str, GalleryPost]) -> None:
    def even(guids: list[str]) -> AttentionMaps:
        picture = np.full((32, 32, 3), 90, np.uint8)
        return AttentionMaps(
            "", {g: PostAttention(picture, ["a"], np.full((1, 7, 7), 1 / 49)) for g in guids}
        )

    attrs = Page(render(run, posts, explain=even)).named("img")[1]
    data = base64.b64decode((attrs["src"] or "").partition(",")[2])
    with Image.open(io.BytesIO(data)) as picture:
        assert np.ptp(np.asarray(picture.convert("RGB"), np.int64)) <= 2


def test_the_page_stays_small(run: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3)).astype(np.uint8)
    picture = tmp_path / "noise.png"
    Image.fromarray(noise).save(picture)

    def loud(guids: list[str]) -> AttentionMaps:
        words = [f"word{k}" for k in range(30)]
        weights = np.random.default_rng(1).dirichlet(np.ones(196), 30).reshape(30, 14, 14)
        return AttentionMaps(
            "", {g: PostAttention(noise[:384, :384], words, weights) for g in guids}
        )

    posts = {str(row): GalleryPost("x" * 5000, picture) for row in range(ROWS)}
    # Pictures of noise are the worst for JPEG; photographs take a third of this.
    assert len(render(run, posts, explain=loud).encode()) < 4_000_000


def test_the_gallery_shows_the_right_posts(run: Path, posts: dict[str, GalleryPost]) -> None:
    labels, predicted, probabilities = outcome()
    page = render(run, posts)
    shown = re.findall(r'<p class="guid"><bdi>(\d+)</bdi>', page)
    confidence, ordered = probabilities.max(axis=1), np.sort(probabilities, axis=1)
    wrong = sorted(np.flatnonzero(labels != predicted), key=lambda row: -confidence[row])
    lead = sorted(range(ROWS), key=lambda row: ordered[row, -1] - ordered[row, -2])
    assert [int(guid) for guid in shown] == [*wrong[:8], *lead[:8]]
    assert f"8 of {len(wrong)} wrong predictions" in page
    assert f"invented post {wrong[0]}" in page


def test_pictures_are_small_jpegs_inside_the_page(run: Path, posts: dict[str, GalleryPost]) -> None:
    pictures = Page(render(run, posts)).named("img")
    assert len(pictures) == 16
    for attrs in pictures:
        data = base64.b64decode((attrs["src"] or "").partition(",")[2])
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "JPEG"
            assert picture.mode == "RGB"
            assert picture.size == (192, 96)
            assert (attrs["width"], attrs["height"]) == ("192", "96")


def test_a_picture_that_cannot_be_opened_becomes_a_note(run: Path, tmp_path: Path) -> None:
    broken, script = tmp_path / "broken.jpg", tmp_path / "script.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no more")
    script.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for path in (broken, script, tmp_path):
        page = Page(render(run, {str(row): GalleryPost("text", path) for row in range(ROWS)}))
        assert not page.named("img")
        assert page.text.count("The picture cannot be opened.") == 16
    page = Page(
        render(run, {str(row): GalleryPost("text", tmp_path / "no.jpg") for row in range(ROWS)})
    )
    assert page.text.count("The picture is missing.") == 16


def test_a_picture_of_too_many_pixels_is_not_decoded(
    run: Path, posts: dict[str, GalleryPost], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extract.inputs.decode.LIMITS", PictureLimits(max_pixels=500 * 250 - 1))
    assert "The picture cannot be opened." in Page(render(run, posts)).text


def test_posts_that_are_not_at_hand_are_said_to_be_missing(run: Path) -> None:
    page = Page(render(run, {}))
    assert page.text.count("the data given to this report have no post with this guid") == 16
    assert page.text.count("No picture: the post is not in the data at hand.") == 16


def test_long_and_empty_texts(run: Path, posts: dict[str, GalleryPost]) -> None:
    image = posts["0"].image
    long = Page(render(run, {guid: GalleryPost("x" * 700, image) for guid in posts}))
    assert "x" * 600 + " …" in long.text
    assert "x" * 601 not in long.text
    assert (
        "The text is empty." in Page(render(run, {g: GalleryPost(" ", image) for g in posts})).text
    )


def test_a_run_without_errors_says_so(run: Path) -> None:
    labels, _, probabilities = outcome()
    rows = [
        [str(i), CLASSES[y], CLASSES[y], *p]
        for i, (y, p) in enumerate(zip(labels, probabilities, strict=True))
    ]
    header = "guid,tag,predicted,p_positive,p_neutral,p_negative\n"
    lines = "".join(",".join(map(str, row)) + "\n" for row in rows)
    (run / "predictions.csv").write_text(header + lines, encoding="utf-8")
    change(run / "metrics.json", outer=score(labels, labels, CLASSES).as_json())
    assert "No prediction is wrong." in Page(render(run, {})).text


def test_a_title_replaces_the_name_of_the_folder(run: Path) -> None:
    text = Page(render(run, {}, "best <b>")).text
    assert "Run best <b>" in text
    assert "made-up" not in text


def test_the_report_is_the_same_twice(run: Path, posts: dict[str, GalleryPost]) -> None:
    assert render(run, posts) == render(run, posts)


NAMES = (
    "config.json",
    "metrics.json",
    "metrics.jsonl",
    "env.json",
    "command.txt",
    "predictions.csv",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(ModelError, match=rf"{re.escape(name)} cannot be read: No such file"):
        render(run, {})


@pytest.mark.parametrize(
    ("name", "content"),
    [(name, b"\xff\xfe\x00") for name in NAMES]
    + [(name, b'{"a": ') for name in NAMES if name != "command.txt"],
)
def test_a_damaged_file_is_named(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{re.escape(name)} is malformed"):
        render(run, {})


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("config.json", {"classes": ...}, "classes: missing"),
        ("config.json", {"classes": ["a", "a"]}, "different names"),
        (
            "config.json",
            {"encoder_fields": {**encoder_fields(), "text": {"modality": "text", "encoder": 1}}},
            r"encoders\.text\.default\.name: 1 is int, a text",
        ),
        ("config.json", {"notes": "one"}, "notes: 'one', .* list"),
        ("config.json", {"studies": [{"name": "x"}]}, r"studies\.0\.trial: missing"),
        ("metrics.json", {"outer": ...}, "outer: missing"),
        (
            "config.json",
            {"calibration": {"temperature": 1.0, "offsets": [1.0]}},
            "expected 3 entries in 'biases' of the calibration, received 1",
        ),
        (
            "metrics.json",
            {"calibration": {"temperature": 1.0, "offsets": [1.0, 2.0, float("nan")]}},
            r"NaN is no finite number",
        ),
        (
            "metrics.json",
            {"members": [{"member": True}]},
            r"members\.0\.member: True is bool, a whole number",
        ),
        ("metrics.json", {"training_rows": 1.5}, r"training_rows: 1\.5 is float, a whole number"),
        ("metrics.json", {"inner": {}}, r"inner\.per_class: missing"),
        ("env.json", {"packages": []}, r"packages: \[\], .* dictionary"),
        (
            "metrics.json",
            {"duplicates": {"guids": [1]}},
            r"duplicates\.guids\.0: 1 is int, a text",
        ),
    ],
)
def test_a_malformed_key_is_named(
    run: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    change(run / name, **changes)
    with pytest.raises(ModelError, match=rf"(?s){re.escape(name)} is malformed:.*{message}"):
        render(run, {})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,positive,positive,0.5,0.5", "line 92 is no row"),
        ("1,positive,joyful,0.5,0.3,0.2", "line 92 is no row"),
        ("1,positive,positive,0.5,0.3,nan", "line 92: a probability is not within 0 and 1"),
        ("1,positive,positive,0.5,0.3,x", "could not convert string to float"),
    ],
)
def test_a_malformed_prediction_is_named(run: Path, line: str, message: str) -> None:
    with (run / "predictions.csv").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ModelError, match=rf"predictions\.csv is malformed: .*{message}"):
        render(run, {})


def test_a_malformed_epoch_is_named(run: Path) -> None:
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 1, "loss": NaN}\n')
    with pytest.raises(
        ModelError, match=r"(?s)metrics\.jsonl is malformed: line 9: NaN is no finite"
    ):
        render(run, {})


def test_predictions_of_another_run_are_refused(run: Path) -> None:
    text = (run / "predictions.csv").read_text("utf-8").splitlines()
    (run / "predictions.csv").write_text("\n".join(text[:-1]), encoding="utf-8")
    with pytest.raises(ModelError, match=r"predictions\.csv does not give the confusion matrix"):
        render(run, {})
