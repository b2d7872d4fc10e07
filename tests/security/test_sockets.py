"""No verb but extraction opens a socket or looks up a name, whatever a run names."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extract.encoders.image import resolve_image
from mmsa_cache import ModelError, load_model
from mmsa_cache.page.answers import Answers
from tests.support.made_up_run import change
from tests.support.small_work import QUICK, call, call_json, make_work

GONE = "somebody/has-this-model"
NOT_HERE = "it is not on this machine, and nothing is fetched here"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = make_work(tmp_path_factory.mktemp("work"), text_model)
    with no_network():
        call(folder, "train", "--name", "run", *QUICK)
    return folder


@contextlib.contextmanager
def no_network() -> Iterator[list[str]]:
    """Sockets but those between processes fail, and so does every look-up of a name.

    Yields:
        What was asked for; code that swallows the error is caught so.
    """
    asked: list[str] = []
    own = socket.socket

    class Local(own):
        def __init__(self, family: int = -1, *more: Any, **others: Any) -> None:
            if family != socket.AF_UNIX and others.get("fileno") is None:
                asked.append(f"socket {family}")
                raise OSError("no network")
            super().__init__(family, *more, **others)

    def refuse(*about: object, **more: object) -> Any:
        asked.append(f"name {about}")
        raise OSError("no network")

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        patch.setattr(socket, "socket", Local)
        for name in ("create_connection", "getaddrinfo", "gethostbyname"):
            patch.setattr(socket, name, refuse)
        yield asked
    assert asked == []


def hostile(work: Path, **model: object) -> str:
    """A copy of the run whose text model is one of the hub."""
    shutil.copytree(work / "runs/run", work / "runs/hostile", dirs_exist_ok=True)
    config = work / "runs/hostile/config.json"
    content = json.loads(config.read_text())
    content["settings"]["text"] |= {"model": GONE, "weights": "pretrained"}
    change(config, settings=content["settings"])
    return "hostile"


def test_every_verb_of_a_run(work: Path) -> None:
    """``tests/cli/test_store_alone.py`` looks at searches and ablations too."""
    picture = "posts/pairs/1.jpg"
    with no_network():
        assert call_json(work, "predict", "--run", "run", "--split", "test")
        assert call_json(work, "predict", "--run", "run", "--text", "a", "--image", picture)
        call(work, "evaluate", "--run", "run", "--labels", "posts/answers.csv")
        call(work, "report", "run")
        call(work, "export", "run", "--to", "model", "--force")
        call(work, "train", "--name", "other", *QUICK, "--set", "loss=ce")
        call(work, "compare", "run", "other")
        for name in ("runs/run", "model"):
            model = load_model(work / name, allow_outside=True)
            assert model.predict("a", work / picture)
            assert Answers(model).explain("a", work / picture)


def test_a_run_that_names_a_model_of_the_hub(work: Path) -> None:
    name = hostile(work)
    with no_network():
        for words in (
            ("predict", "--run", name, "--text", "a"),
            ("predict", "--run", name, "--split", "test"),
        ):
            said = call(work, *words, code=4)
            assert GONE in said
            assert NOT_HERE in said
        with pytest.raises(ModelError, match=NOT_HERE):
            load_model(work / "runs" / name).predict("a")
        call(work, "report", name, "--out", "hostile.html", "--force")
        call(work, "export", name, "--to", "hostile", "--force")


def test_a_hub_is_asked_where_that_is_confirmed(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    fetched: list[bool] = []

    def snapshot(name: str, *, local_files_only: bool, **_: object) -> str:
        assert name == GONE
        fetched.append(local_files_only)
        raise OSError("there is no such model")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    name = hostile(work)
    said = call(work, "export", name, "--to", "stolen", "--online", code=4)
    assert "there is no such model" in said
    with pytest.raises(ModelError, match="there is no such model"):
        load_model(work / "runs" / name, online=True).predict("a")
    assert fetched == [True, False] * 2
    call(work, "predict", "--run", name, "--text", "a", code=4)
    assert fetched[4:] == [True]
    assert not (work / "stolen").exists()


def test_an_image_model_of_the_hub_is_fetched_by_no_name() -> None:
    how: Any = {"mean": None, "std": None, "size": None, "fit": "crop", "seed": 0}
    with no_network():
        for name in ("hf-hub:somebody/model", "hf_hub:somebody/model", "somebody/model"):
            with pytest.raises(ModelError, match="timm has no image model"):
                resolve_image(name, "random", {}, **how)
