"""Calls of the Python API with anything as arguments: what a cell of a notebook may hold."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.exceptions import NotFittedError

import mmsa_cache as mmsa
from fuse.setting import FIELDS
from mmsa_cache.api.parameters import PARAMETERS
from mmsa_cache.compose.train.request import TrainRequest
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.errors import MmsaError
from tests.support.fuzzing import EXAMPLES, ODD, Random, series
from tests.support.made_up_run import write_run
from tests.support.small_work import mmsa as mmsa_command
from tests.support.tally import Tally

VALUES: tuple[Any, ...] = (
    *ODD,
    *(b"x", b"", Path("x"), Path("/etc/passwd"), object, len, {1}, range(3), 1j, np.float32(2)),
    *(np.nan, np.array([1, 2]), np.array([]), np.array("a"), Image.new("L", (8, 8)), slice(1), ...),
    *("train", "all", "auto", "cpu", "cuda", "gated", "concat", "tokens", "pooled", "best", "run"),
)
"""What an argument may be."""
OWN = (MmsaError, TypeError)
"""Python's own words for arguments that a function does not have."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an invented run, and no data."""
    (tmp_path / "mmsa.toml").write_text('device = "cpu"\n')
    (tmp_path / "runs").mkdir()
    write_run(tmp_path / "runs/run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


CALLS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "open": (
        mmsa.open,
        ("cache", "data", "device", "seed", "text_model", "image_model", "storage"),
    ),
    "train": (
        mmsa.train,
        (
            *("session", "study", "name", "folds", "seeds", "outer", "ensemble", "max_mb"),
            *("decide", "engine", "workers", "track", "fusion", "alpha", "epochs", "level", "x"),
        ),
    ),
    "search": (mmsa.search, ("session", "study", "trials", "workers", "name", "select", "outer")),
    "extract": (
        mmsa.extract,
        ("cache", "data", "split", "encoders", "workers", "engine", "device"),
    ),
    "check": (mmsa.check, ("data", "cache")),
    "Run": (mmsa.Run, ("run",)),
    "Study": (mmsa.Study, ("name", "session")),
    "load_model": (mmsa.load_model, ("run", "device", "online", "x")),
}


@EXAMPLES
def test_calls(project: Path, examples: int, tally: Tally) -> None:
    def make(chosen: Random) -> tuple[str, dict[str, Any]]:
        name = chosen.choice([*CALLS])
        names = CALLS[name][1]
        count = chosen.randrange(1, min(len(names), 3) + 1)
        return name, {of: chosen.choice(VALUES) for of in chosen.sample(names, count)}

    def work(content: tuple[str, dict[str, Any]]) -> None:
        name, arguments = content
        CALLS[name][0](**arguments)

    tally("fuzzed calls of the API", examples, series(examples, make, work, own=OWN))


VECTORS = np.random.default_rng(0).normal(size=(12, 3))
LABELS = np.array(["a", "b"] * 6)


def half(chosen: Random) -> Any:
    """A half of posts: mostly vectors, of other lengths, types, and with holes."""
    rows = chosen.choice((12, 12, 12, 11, 1, 0))
    found: Any = VECTORS[:rows].copy()
    what = chosen.randrange(14)
    if what == 0 and rows:
        found[0, 0] = chosen.choice((np.nan, np.inf, 1e300))
    elif what == 1:
        found = list(found)
        found[:1] = [chosen.choice(VALUES)]
    elif what == 2:
        found = found[:, : chosen.randrange(3)]
    elif what == 3:
        found = [found[: chosen.randrange(4)] for _ in range(rows)]
    elif what == 4:
        found = found.astype(chosen.choice(("f2", "i8", "U9", "O", "c16", "?", "S4", "f16")))
    elif what == 5:
        found = chosen.choice(VALUES)
    elif what == 6:
        found = [chosen.choice(VALUES) for _ in range(rows)]
    elif what == 7:
        found = found.reshape(rows, 3, 1) if chosen.random() < 0.5 else found.tolist()
    elif what == 8:
        found = [None] * rows
    return found


@EXAMPLES
def test_classifiers(project: Path, examples: int, tally: Tally) -> None:
    """Trainings are not run: an answer comes before, or their inputs are sound."""

    class BeganError(Exception):
        pass

    def began(*of: Any, **more: Any) -> Any:
        raise BeganError

    def make(chosen: Random) -> Any:
        names = [*FIELDS, *PARAMETERS]
        given = {
            chosen.choice(names): chosen.choice(VALUES) for _ in range(chosen.choice((0, 0, 1, 2)))
        }
        for name in ("text_model", "image_model", "online"):
            given.pop(name, None)
        labels: Any = LABELS
        if chosen.random() < 0.3:
            labels = chosen.choice(
                (*VALUES, LABELS[:3], np.zeros(12), [None] * 12, VECTORS, [1, "a"] * 6)
            )
        groups = (
            None if chosen.random() < 0.8 else chosen.choice((*VALUES, np.arange(12), [1] * 12))
        )
        return given, half(chosen), None if chosen.random() < 0.4 else half(chosen), labels, groups

    def work(content: Any) -> None:
        given, text, image, labels, groups = content
        mmsa.FusionClassifier(**given).fit(text, image, labels, groups=groups)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmsa_cache.api.classifier.train_on_all_rows", began)
        held = series(examples, make, work, own=(*OWN, ValueError, NotFittedError, BeganError))
    tally("fuzzed FusionClassifier.fit", examples, held)


@EXAMPLES
def test_predictions_of_classifiers(project: Path, examples: int, tally: Tally) -> None:
    """Of any halves: probabilities, or an answer."""
    fitted = mmsa.FusionClassifier(epochs=1, folds=2, text_dim=4, image_dim=4, head="")
    fitted.fit(VECTORS, VECTORS[::-1], LABELS)

    def make(chosen: Random) -> tuple[Any, Any]:
        return half(chosen), VECTORS if chosen.random() < 0.5 else half(chosen)

    def work(content: tuple[Any, Any]) -> None:
        found = fitted.predict_proba(*content)
        assert found.shape == (len(found), 2)
        assert np.allclose(found.sum(axis=1), 1)

    held = series(examples, make, work, own=(*OWN, ValueError))
    tally("fuzzed posts of a FusionClassifier", examples, held)


def test_what_is_no_text_and_no_session_is_refused_in_words(project: Path) -> None:
    with pytest.raises(mmsa.SettingsError, match=r"name=range\(0, 3\): a text is expected"):
        mmsa.Study(range(3))  # type: ignore[arg-type]
    with pytest.raises(mmsa.SettingsError, match="A session is expected, received 'x'"):
        mmsa.Study("best", "x")  # type: ignore[arg-type]
    with pytest.raises(mmsa.SettingsError, match=r"encoders=slice\(None, 1, None\): a text"):
        mmsa.extract(encoders=slice(1))  # type: ignore[arg-type]
    with pytest.raises(mmsa.SettingsError, match=r"engine cannot be .*'local' 'ray'"):
        mmsa.extract(engine=np.array(["local", "ray"]))  # type: ignore[arg-type]
    with pytest.raises(mmsa.SettingsError, match="No data folder"):
        mmsa.extract(split=None, encoders=None)  # type: ignore[arg-type]
    with pytest.raises(mmsa.MmsaError, match="There is no run 'xxx"):
        mmsa.Run("x" * 3000)
    with pytest.raises(mmsa.MmsaError, match="There is no store"):
        mmsa.open("~nobody-at-all/x")
    with pytest.raises(mmsa.DataError, match="y has no labels"):
        mmsa.FusionClassifier().fit(VECTORS, None, [])


NO_PATHS = ("a\0b", "x" * 5000, Path("x" * 300), "\ud800", 5, b"x", ["x"], np.nan)


@pytest.mark.parametrize("path", NO_PATHS, ids=range(len(NO_PATHS)))
def test_paths_that_no_file_can_have_are_refused_in_words(project: Path, path: Any) -> None:
    for function, name in (
        (mmsa.open, "cache"),
        (mmsa.open, "data"),
        (mmsa.check, "data"),
        (mmsa.make_demo, "folder"),
    ):
        with pytest.raises(mmsa.SettingsError, match=rf"^{name}=.*the path of a file"):
            function(**{name: path})
    with pytest.raises(mmsa.SettingsError, match=r"^cache=.*the path of a file"):
        mmsa.load_model("run", cache=path)
    for find in (mmsa.Run, mmsa.load_model):
        with pytest.raises(mmsa.MmsaError, match=r"^(run=.*the path of a file|There is no run)"):
            find(path)  # a text may be a name too
    # A path that is a setting, and none that can be, is a name like others.
    with contextlib.suppress(mmsa.MmsaError):
        mmsa.open(text_model=path)


def test_what_the_system_refuses_is_an_error_of_mmsa(project: Path) -> None:
    (project / "circle").symlink_to("circle")
    (project / "runs/run/metrics.json").unlink()
    (project / "runs/run/metrics.json").symlink_to("metrics.json")
    with pytest.raises(mmsa.ModelError, match=r"metrics.json cannot be read: Too many levels"):
        assert mmsa.Run("run").figures
    (project / "mmsa.toml").write_text('[cache]\ndir = "a\\u0000b"\n')
    with pytest.raises(mmsa.SettingsError, match=r"cache.dir: no file can have this name"):
        mmsa.open()
    (project / "mmsa.toml").write_text(f'[cache]\ndir = "{"x" * 300}"\n')
    with pytest.raises(mmsa.SettingsError, match=r"x{100}…: File name too long"):
        mmsa.open()
    assert "Name another" in mmsa_command(project, "train", code=2).output
    (project / "mmsa.toml").write_text('[cache]\ndir = "circle"\n')
    with pytest.raises(mmsa.MmsaError, match=r"links in a circle|There is no store"):
        mmsa.open()
    with pytest.raises(mmsa.SettingsError, match=r"pairs=nan: a whole number from 60"):
        mmsa.make_demo("demo", pairs=np.nan)  # type: ignore[arg-type]
    with pytest.raises(mmsa.SettingsError, match=r"decide cannot be .5"):
        mmsa.load_model("run", decide=5)  # type: ignore[arg-type]
    assert not (project / "demo").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"study": 5}, "study=5: a study, or its name, is expected"),
        ({"study": ["best", None]}, "a study, or its name, is expected"),
        ({"study": np.array(["best"])}, "a study, or its name, is expected"),
        ({"average": 2}, "average=2: True or False is expected"),
        ({"single": np.array([1, 2])}, "single=array.*: True or False is expected"),
        ({"folds": True}, "folds=True: a whole number from 1 is expected"),
    ],
)
def test_arguments_of_train_that_are_none(project: Path, arguments: Any, said: str) -> None:
    with pytest.raises(mmsa.SettingsError, match=said):
        mmsa.train(mmsa.Session(mmsa.load_settings()), **arguments)


@pytest.mark.parametrize("name", ["folds", "seeds"])
def test_more_folds_than_there_may_be_are_refused_in_words(project: Path, name: str) -> None:
    request: Any = TrainRequest(**{name: 10**14})
    with pytest.raises(mmsa.SettingsError, match=rf"{name}: 10{{14}}, a number up to 1000"):
        request.protocol(Protocol(), mmsa.Session(mmsa.load_settings()))
