"""Records with values of every wrong kind: refused in words, or harmless; no NaN comes out."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fuse.setting import Setting
from fuse.training.ensemble import Ensemble
from mmsa_cache.compose.predict.predictor import load_model
from mmsa_cache.config.loading import load_settings
from mmsa_cache.data.pairs import BadRow, Fault
from mmsa_cache.data.set_aside import read_set_aside, write_set_aside
from mmsa_cache.errors import DamagedCacheError, ModelError, SettingsError
from mmsa_cache.runs.folder import RunFolder
from tests.support.older_runs import FILES, STORED
from tests.support.small_work import mmsa

HUGE = "1e999"
WRONG: list[Any] = [None, [], {}, "", HUGE, -1, 0, 1e-320, 2**70, True, "x" * 5000]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of everything in a value: of lists the first two items."""
    yield place
    inside = value if isinstance(value, dict) else {}
    if isinstance(value, list):
        inside = dict(enumerate(value[:2]))
    for key, inner in inside.items():
        yield from places(inner, (*place, key))


def with_value(content: Any, place: tuple[Any, ...], value: Any) -> str:
    """JSON with another value at a place."""
    whole = [content]
    inside: Any = whole
    *way, last = (0, *place)
    for key in way:
        inside = inside[key]
    before, inside[last] = inside[last], value
    changed = json.dumps(whole[0])
    inside[last] = before
    return changed.replace(f'"{HUGE}"', HUGE)


@pytest.fixture
def restored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members are made once for what a record says of them: most of it says nothing of them."""
    real, made = Ensemble.restore, {}

    def restore(settings: Any, tensors: Any, *others: Any) -> Ensemble:
        said = repr((settings, others))
        if said not in made:
            made[said] = real(settings, tensors, *others)
        return made[said]

    monkeypatch.setattr(Ensemble, "restore", restore)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    shutil.copytree(STORED, folder, dirs_exist_ok=True)
    path = folder / "runs/old/config.json"
    path.write_text(path.read_text().replace("WORK", str(folder)))
    return folder


@pytest.mark.usefixtures("restored_once")
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.faults)])
@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
def test_any_value_of_a_record(
    work: Path, name: str, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(work / "runs/old", run)
    content = json.loads((run / name).read_text())
    refused = 0
    for place, value in itertools.islice(itertools.product(places(content), WRONG), 0, None, every):
        (run / name).write_text(with_value(content, place, value))
        try:
            if name == "config.json":
                model = load_model(run)
                assert all(map(math.isfinite, _calibrated(model)))
            else:
                getattr(RunFolder(run), FILES[name])
        except (ModelError, SettingsError):
            refused += 1
    assert refused > 20


def _calibrated(model: Any) -> list[float]:
    import numpy as np

    count = len(model.classes)
    some = np.array([[1.0, *[0.0] * (count - 1)], [1 / count] * count])
    found: list[float] = model.ensemble.calibration(some).ravel().tolist()
    return found


def test_any_value_of_what_is_set_aside(tmp_path: Path) -> None:
    row = BadRow("1", 2, (Fault("missing", "no picture"),), "a" * 64, "b" * 64)
    path = write_set_aside(tmp_path, "train", tmp_path / "posts", "c" * 64, [row])
    content = json.loads(path.read_text())
    refused = 0
    for place in places(content):
        for value in WRONG:
            path.write_text(with_value(content, place, value))
            try:
                assert len(read_set_aside(tmp_path, "train").identities) < 2
            except DamagedCacheError:
                refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("metrics.json", ("calibration", "offsets")),
        ("studies.json", (0, "alpha_beta", 0, "trials")),
    ],
)
def test_figures_that_no_page_can_show_are_refused(
    work: Path, name: str, place: tuple[Any, ...]
) -> None:
    path = work / "runs/old" / name
    good = path.read_text()
    try:
        for value in ([], 0):
            path.write_text(with_value(json.loads(good), place, value))
            said = mmsa(work, "report", "old", "--out", "page.html", code=4).output
            assert name in said
    finally:
        path.write_text(good)


def test_figures_of_other_classes_are_refused(work: Path) -> None:
    path = work / "runs/old/metrics.json"
    good = path.read_text()
    try:
        for part in ("outer", "inner"):
            content = json.loads(good)
            classes = content[part]["per_class"]
            content[part]["per_class"] = {f"{name}!": classes[name] for name in classes}
            path.write_text(json.dumps(content))
            said = mmsa(work, "report", "old", "--out", "page.html", code=4).output
            assert "metrics.json is malformed: it has the classes" in said
            assert "config.json has" in said
    finally:
        path.write_text(good)


@pytest.mark.parametrize(
    "calibration",
    [
        {"temperature": 1e-320, "offsets": [0.0, 0.0, 0.0]},
        {"temperature": 1e300, "offsets": [0.0, 0.0, 0.0]},
        {"temperature": 1.0, "offsets": [1e308, 0.0, 0.0]},
        {"temperature": 1.0, "offsets": [None, 0.0, 0.0]},
        None,
    ],
)
def test_a_calibration_gives_probabilities(work: Path, calibration: Any) -> None:
    path = work / "runs/old/config.json"
    good = path.read_text()
    path.write_text(json.dumps(json.loads(good) | {"calibration": calibration}))
    try:
        said = mmsa(work, "predict", "--run", "old", "--text", "good day", code=4).output
    finally:
        path.write_text(good)
    assert "calibration" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"grid": 1000},
        {"rank": 10**6},
        {"heads": 2**70},
        {"layers": 10**5},
        {"text_dim": 10**8},
        {"ffn": 10**8},
        {"landmarks": 10**9},
        {"epochs": 10**12},
        {"batch_size": 10**12},
        {"head": "-".join(["9"] * 50)},
        {"head": "1000000"},
        {"prior": 1e300},
    ],
)
def test_sizes_of_a_setting_have_limits(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(changes))):
        Setting(**changes)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image.size", 10**6),
        ("text.max_tokens", 10**9),
        ("extract.variants", 10**9),
        ("extract.tokens", "pool:1000x1000"),
        ("extract.batch_size", 10**12),
        ("cache.shard_rows", 10**12),
        ("image.std", [0.0, 1.0, 1.0]),
        ("image.mean", [math.inf, 0.0, 0.0]),
        ("seed", 2**70),
        ("data.classes", []),
    ],
)
def test_sizes_of_settings_have_limits(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings({key: value}, folder=tmp_path, environ={})
    assert key in str(error.value)
