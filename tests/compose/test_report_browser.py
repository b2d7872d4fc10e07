"""The report in a real browser: headless Chromium, no network, wide and narrow, light and dark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsa_cache.compose.predict.compare import compare_runs
from mmsa_cache.compose.report.comparison_page import render_comparison
from mmsa_cache.compose.report.gallery import GalleryPost
from mmsa_cache.runs.folder import RunFolder
from tests.support.browser import opened_browser
from tests.support.made_up_run import (
    HOSTILE,
    ROWS,
    SECTIONS,
    against,
    change,
    encoder_fields,
    explained,
    invented_study,
    model_of,
    outer_of,
    write_other_run,
    write_run,
)
from tests.support.reports import render

WIDE, NARROW = (1100, 900), (360, 740)
ATTACKS = (
    "<script>document.title = 'broken'</script>",
    '"><img src=x onerror="document.title = \'broken\'">',
    "' onmouseover='document.title = 1' x='",
    "</style><script>document.title = 'broken'</script>",
    "<svg onload=\"document.title = 'broken'\">",
    "{{ 7 * 7 }} &lt;b&gt;",
    "x" * 300,
)
# With every fold open; what scrolls or ends with an ellipsis in a box counts as that box.
OUTSIDE = """document.querySelectorAll('details').forEach(d => d.open = true);
    const width = window.innerWidth;
    const out = [...document.body.querySelectorAll('*')].filter(e => !e.closest('.scroll *')
        && !e.closest('svg *') && !e.closest('.word *')
        && e.getBoundingClientRect().right > width + 0.5);
    return [document.documentElement.scrollWidth, width, out.slice(0, 5).map(
        e => e.outerHTML.slice(0, 80))]"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it, every text of it hostile."""
    folder = tmp_path_factory.mktemp("browser")
    classes = ["positive", ATTACKS[1], ATTACKS[6]]
    guids = [f"{ATTACKS[row % len(ATTACKS)]}{row}" for row in range(ROWS)]
    run = write_run(folder / "run", classes, guids)
    picture = folder / "<script>alert(1)<script>'\".png"
    picture = picture.with_name(picture.name.replace("/", ""))
    Image.fromarray(np.full((40, 300, 3), 120, np.uint8)).save(picture)
    posts = {
        guid: GalleryPost(ATTACKS[row % len(ATTACKS)] + " 晴れ", picture)
        for row, guid in enumerate(guids)
    }
    change(
        run / "config.json",
        notes=list(ATTACKS),
        models=[model_of(**{ATTACKS[0]: ATTACKS[1], "fusion": ATTACKS[6]})],
        settings={"data": {"root": ATTACKS[6], "encoding": HOSTILE}},
        encoder_fields=encoder_fields(ATTACKS[4], ATTACKS[6]),
        studies=[{"name": ATTACKS[0], "trial": 1, "score": None}],
    )
    without = outer_of(3)
    of = dict(zip(classes, without["per_class"].values(), strict=True))
    change(
        run / "metrics.json",
        duplicates={"rows": 3, "guids": guids[:3]},
        outer_without_duplicates=without | {"per_class": of},
    )
    (run / "studies.json").write_text(json.dumps([invented_study(ATTACKS[6])]), encoding="utf-8")
    html = render(
        run,
        posts,
        ATTACKS[3],
        against=against(classes, guids),
        explain=lambda names: explained(names, ATTACKS),
    )
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two runs with long names, and a post of hostile text."""
    folder = tmp_path_factory.mktemp("comparison")
    names = [f"{'long' * 12}-{end}" for end in "ab"]
    write_run(folder / names[0])
    write_other_run(folder / names[1])
    runs = {name: RunFolder(folder / name) for name in names}
    picture = folder / "picture.png"
    Image.new("RGB", (300, 40), "red").save(picture)
    posts = {str(row): GalleryPost(" ".join(ATTACKS), picture) for row in range(ROWS)}
    compared = compare_runs(names, [*runs.values()]).comparison
    path = folder / "comparison.html"
    path.write_text(render_comparison(runs, compared, posts, ATTACKS).html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Any]:
    """A browser that has opened the report and logs its console and every request."""
    with opened_browser() as driver:
        driver.get(page.as_uri())
        yield driver


def look(browser: Any, size: tuple[int, int], scheme: str = "light") -> None:
    """Makes the window so large and lets it prefer light or dark."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def test_nothing_is_asked_of_any_host_and_nothing_is_complained_of(
    browser: Any, page: Path
) -> None:
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert page.as_uri() in asked
    others = {url.partition(",")[0] for url in asked - {page.as_uri()}}
    assert others <= {"data:image/jpeg;base64"}


def test_hostile_texts_do_nothing(browser: Any) -> None:
    assert browser.title == f"Run {ATTACKS[3]}"
    count = "return document.querySelectorAll(arguments[0]).length"
    assert browser.execute_script(count, "script, iframe, object, link, [onload], [onerror]") == 0
    inside = """return [...document.querySelectorAll('*')].filter(
        e => [...e.attributes].some(a => a.name.startsWith('on'))).length"""
    assert browser.execute_script(inside) == 0
    text = browser.execute_script("return document.body.textContent")
    for attack in ATTACKS:
        assert attack in text


def test_every_section_is_seen(browser: Any) -> None:
    look(browser, WIDE)
    heights = "return arguments[0].map(s => document.getElementById(s).offsetHeight)"
    assert all(height > 60 for height in browser.execute_script(heights, SECTIONS))
    drawn = """return [...document.querySelectorAll('svg')].every(
        e => e.getBBox().width > 0 && e.getBoundingClientRect().width > 40)"""
    assert browser.execute_script(drawn)
    decoded = "return [...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)"
    assert browser.execute_script("return document.images.length") > 100
    assert browser.execute_script(decoded)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_nothing_stands_out_of_the_window(browser: Any, size: tuple[int, int], scheme: str) -> None:
    look(browser, size, scheme)
    scrolled, width, out = browser.execute_script(OUTSIDE)
    assert out == []
    assert scrolled <= width == size[0]


def test_text_stands_out_from_its_ground_in_light_and_dark(browser: Any) -> None:
    """WCAG 2.1 contrast of 4.5 : 1 for the text's three colours."""
    # Colours go through a canvas, which knows every notation.
    script = """
        const rgb = c => { const x = document.createElement('canvas').getContext('2d');
            x.fillStyle = c; x.fillRect(0, 0, 1, 1); return [...x.getImageData(0, 0, 1, 1).data]; };
        const style = (s, key) => getComputedStyle(document.querySelector(s))[key];
        return [rgb(style('body', 'backgroundColor')), rgb(style('body', 'color')),
            rgb(style('.muted', 'color')), rgb(style('nav a', 'color'))]"""

    def luminance(colour: list[int]) -> float:
        parts = np.array(colour[:3]) / 255
        linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    grounds = []
    for scheme in ("light", "dark"):
        look(browser, WIDE, scheme)
        ground, *texts = [luminance(colour) for colour in browser.execute_script(script)]
        grounds.append(ground)
        for text in texts:
            assert (max(ground, text) + 0.05) / (min(ground, text) + 0.05) > 4.5, scheme
    assert grounds[0] > 0.8
    assert grounds[1] < 0.1


def test_on_paper_everything_is_light_and_open(browser: Any) -> None:
    look(browser, WIDE, "dark")
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = false)")
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": [feature]})
    try:
        ink, hidden, folded, cut = browser.execute_script(
            """const all = s => [...document.querySelectorAll(s)];
            return [getComputedStyle(document.body).color, all('nav').map(e => e.offsetHeight),
                all('details table').filter(e => !e.checkVisibility({contentVisibilityAuto: true})
                    || e.offsetHeight < 20).length,
                all('.scroll').filter(e => getComputedStyle(e).overflowX != 'visible').length]"""
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert ink == "rgb(29, 32, 36)"
    assert hidden == [0]
    assert folded == cut == 0


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_the_page_of_several_runs_stays_in_the_window(
    browser: Any, comparison: Path, size: tuple[int, int]
) -> None:
    look(browser, size)
    browser.get(comparison.as_uri())
    try:
        scrolled, width, out = browser.execute_script(OUTSIDE)
        assert out == []
        assert scrolled <= width == size[0]
        assert len(browser.execute_script("return document.images")) == 12
        assert browser.get_log("browser") == []
    finally:
        browser.back()
