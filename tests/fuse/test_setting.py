"""A setting: its checks, and the one way from values to it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from fuse.assignments import parse_assignments
from fuse.evidence.cells import cells
from fuse.figures.study import Value
from fuse.losses.losses import LOSSES
from fuse.models.fusions import FUSIONS
from fuse.search.study import ListChoice, StudyConfig
from fuse.setting import FIELDS, Setting, change, complete, restore, value_problem
from mmsa_cache.compose.session.session import Session
from mmsa_cache.compose.train.choose import choose_settings
from mmsa_cache.compose.train.request import TrainRequest
from mmsa_cache.config.settings import Settings
from mmsa_cache.errors import SettingsError

FUSED: dict[str, Value] = {"fusion": "encoder", "level": "tokens", "text_dim": 64}
"""An encoder needs equal dims and has modality embeddings at this level."""

KNOWN = {
    ("text", "default"): ("cls", "mean", "mean@3", "mean@6"),
    ("text", "vader"): ("all",),
    ("image", "default"): ("mean", "cls"),
}
NOWHERE = Session(Settings())
"""No data is read where the settings are given."""


def by_flags(values: dict[str, Value]) -> Setting:
    """``mmsa train --set …``"""
    request = TrainRequest(changes=parse_assignments([f"{k}={v}" for k, v in values.items()]))
    return choose_settings(request, NOWHERE).settings[0]


def by_fixed_study(values: dict[str, Value]) -> Setting:
    """``mmsa train --study fixed --set alpha=…``, the rest in the file."""
    lines = [f"{k} = {v!r}" for k, v in values.items() if k != "alpha"]
    Path("studies").mkdir(exist_ok=True)
    Path("studies/fixed.toml").write_text("[fixed]\n" + "\n".join(lines), encoding="utf-8")
    request = TrainRequest(studies=["fixed"], changes={"alpha": values["alpha"]})
    return choose_settings(request, NOWHERE).settings[0]


def by_search(values: dict[str, Value]) -> Setting:
    """A trial of a study."""
    study = StudyConfig(
        name="drawn",
        fixed={"alpha": values["alpha"]},
        space={k: ListChoice(values=[v]) for k, v in values.items() if k != "alpha"},
    )
    return study.suggest(optuna.create_study().ask())


def by_ablation(values: dict[str, Value]) -> Setting:
    """``mmsa ablate --axis alpha=0.25,… --set …``"""
    fixed = {k: v for k, v in values.items() if k != "alpha"}
    study = StudyConfig(
        name="axes", fixed=fixed, space={"alpha": ListChoice(values=[0.25, values["alpha"]])}
    )
    return cells(study, ["alpha"])[1].setting


def by_stored_trial(values: dict[str, Value]) -> Setting:
    """``mmsa train --study NAME:TRIAL --set …``"""
    return change(restore(asdict(complete({"fusion": "encoder"}))), values)


@pytest.mark.parametrize(
    "route", [by_flags, by_fixed_study, by_search, by_ablation, by_stored_trial]
)
def test_every_route_gives_the_same_setting(
    route: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values: dict[str, Value] = {"alpha": 0.5, **FUSED}
    assert route(values) == complete(values)
    assert (route(values).beta, route(values).image_dim) == (0.5, 64)
    assert route(values).modality_embeddings is True
    assert route({**values, "beta": 0.9}).beta == 0.9


def test_what_follows_from_other_values() -> None:
    assert complete({}) == Setting()
    assert complete({"fusion": "encoder"}).modality_embeddings is False
    assert complete(FUSED | {"modality_embeddings": False}).modality_embeddings is False
    assert complete({"fusion": "concat", "text_dim": 64}).image_dim == 256
    assert change(complete({"alpha": 0.25, "beta": 0.6}), {"alpha": 0.5}).beta == 0.6
    assert change(complete(FUSED), {"level": "pooled"}).modality_embeddings is False


def test_what_an_older_version_stored_is_what_it_trained() -> None:
    before = {k: v for k, v in asdict(complete(FUSED)).items() if k != "modality_embeddings"}
    assert restore({**before, "alpha": 0.5, "beta": 0.75}).beta == 0.75
    assert restore(before).has_modality_embeddings, "on at tokens"
    assert not restore({**before, "level": "pooled"}).has_modality_embeddings


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("dropout", None, "None is NoneType, a number is expected"),
        ("dropout", True, "True is bool, a number is expected"),
        ("dropout", float("nan"), "nan, a finite number is expected"),
        ("epochs", 1.0, "1.0 is float, a whole number is expected"),
        ("ema", 1.0, "1.0, a number below 1 is expected"),
        ("batch_size", 1, "1, a number from 2 is expected"),
        ("loss", "mse", f"'mse', valid: {', '.join(LOSSES)}"),
        ("fusion", "glue", f"'glue', valid: {', '.join(FUSIONS)}, kernel"),
        ("text_pooling", "max", "'max', valid: mean, first, attention"),
        ("head", "10-0", "'10-0', sizes as in '1024-256', or nothing, are expected"),
        ("variants", 1, "1 is int, true or false is expected"),
        ("text_encoder", 3, "3 is int, a text is expected"),
    ],
)
def test_a_wrong_value_is_explained(key: str, value: Any, problem: str) -> None:
    assert value_problem(key, value) == problem
    for make in (complete, restore, lambda values: replace(Setting(), **values)):
        with pytest.raises(SettingsError) as raised:
            make({key: value})
        assert raised.value.problems == [f"{key}: {problem}"]


def test_every_field_can_be_set_by_a_flag() -> None:
    for key, value in asdict(complete(FUSED)).items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        assert parse_assignments([f"{key}={text}"]) == {key: value}, key
    assert FIELDS.keys() == asdict(Setting()).keys()


@pytest.mark.parametrize(
    ("pools", "resolved"),
    [
        ("mean", "mean"),
        ("mean@*+mean", "mean@3+mean@6+mean"),
        ("mean@6+mean@*", "mean@6+mean@3"),
        ("first?+cls?+mean", "cls+mean"),
        ("mean+vader.all?+other.mean?+vader.some?", "mean+vader.all"),
        ("mean+vader.*", "mean+vader.all"),
        ("missing", "missing"),
    ],
)
def test_pools_are_resolved_for_a_store(pools: str, resolved: str) -> None:
    found = Setting(text_pool=pools).resolved(lambda *encoder: KNOWN.get(encoder, ()))
    assert found.text_pool == resolved
    study = StudyConfig(name="s", fixed={"text_pool": pools}, queue=[{"text_pool": pools}])
    of_store = study.resolved(lambda *encoder: KNOWN.get(encoder, ()))
    assert {of_store.fixed["text_pool"], of_store.queue[0]["text_pool"]} == {resolved}


def test_wrong_pools_are_named() -> None:
    with pytest.raises(SettingsError, match=r"image_pool = first\?\+mean@\*: the store has none"):
        Setting(image_pool="first?+mean@*").resolved(lambda *encoder: KNOWN.get(encoder, ()))
    for pools in ("mean?*", "*mean", "", "mean++cls", "mean+mean"):
        with pytest.raises(SettingsError, match="pools as in 'mean'"):
            Setting(text_pool=pools)
