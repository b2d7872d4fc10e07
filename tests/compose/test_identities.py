"""Every field of what identifies features, a study or a run is noticed when it changes.

The fields are those that the classes have: a new one fails here until it is part of the identity,
or stands in a list below with the reason.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from extract.encoders.image import ImageSpec
from extract.encoders.numbers import NumbersSpec
from extract.encoders.options import Options
from extract.encoders.text import TextSpec
from fuse.search.pruning import PruningRule
from fuse.search.study import Sampler, StudyConfig
from fuse.search.study_record import StudyIdentity
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.batch import Dims
from mmsa_cache.files.hashing import digest
from mmsa_cache.runs.record import RunIdentity, TrainedModel
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.identity import MAY_DIFFER, EncoderIdentity, Origin
from tests.support.fake_search import make_study

OPTIONS = Options(layer=2, tokens="pool:2x2", pool_layers=(1,))
IMAGE = ImageSpec(
    name="tiny",
    kwargs={"depth": 1},
    file=Path("weights.safetensors"),
    random_seed=None,
    size=32,
    crop=0.9,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
    folder=None,
    options=OPTIONS,
    source={"encoder": "tiny", "kwargs": {"depth": 1}, "weights": "ab"},
)
TEXT = TextSpec("tiny", Path("tiny"), None, 64, False, replace(OPTIONS, tokens="keep"), {
    "encoder": "tiny", "weights": "ab", "tokenizer": "cd",
})  # fmt: skip
NUMBERS = NumbersSpec(Options(), {"encoder": "rules", "version": 1}, 3, lambda: lambda texts: texts)
SPECS = {"image": IMAGE, "text": TEXT, "numbers": NUMBERS}
FOLLOWS = {
    "name": "source has it under `encoder`",
    "kwargs": "source has them",
    "file": "source has the hash of its content; where it lies changes nothing",
    "folder": "source has the hash of its files",
    "random_seed": "source has it in `weights`",
    "joint": "the configuration of the weights says it, and source has its hash",
    "numbers": "the rule says it",
    "build_rule": "source names it",
}
"""Fields of encoders that follow from others."""
OPTIONAL = {
    ("text", "tokens"): "keep",
    ("numbers", "layer"): "rules have no layers",
    ("numbers", "pool_layers"): "rules have no layers",
    ("numbers", "tokens"): "only `none` differs from `keep`",
}


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2
    if isinstance(value, tuple):
        return tuple(other(part) for part in value) if value else (1,)
    if isinstance(value, dict):
        return {**value, "one more": "x"}
    if value is None:
        return 0.5
    if isinstance(value, str):
        return f"{value}x"
    return value


def own_fields() -> list[Any]:
    """(kind, field) of all encoders, and of their options."""
    return [
        pytest.param(kind, field.name, id=f"{kind}-{field.name}")
        for kind, spec in SPECS.items()
        for field in (*fields(spec), *fields(Options))
        if field.name not in FOLLOWS
        and field.name != "options"
        and (kind, field.name) not in OPTIONAL
    ]


@pytest.mark.parametrize(("kind", "field"), own_fields())
def test_every_field_of_an_encoder_is_part_of_its_identity(kind: str, field: str) -> None:
    spec: Any = SPECS[kind]
    if field in {known.name for known in fields(spec)}:
        changed = replace(spec, **{field: other(getattr(spec, field))})
    else:
        value = other(getattr(spec.options, field))
        changed = replace(spec, options=replace(spec.options, **{field: value}))

    assert changed.identity != spec.identity
    before, after = (StoredEncoder.of(of.identity) for of in (spec, changed))
    assert after.fingerprint != before.fingerprint
    assert after.subfolder != before.subfolder


@pytest.mark.parametrize("kind", SPECS)
def test_text_without_positions_is_other_features(kind: str) -> None:
    spec: Any = SPECS[kind]
    without = replace(spec, options=replace(spec.options, tokens="none"))
    assert without.identity != spec.identity


@pytest.mark.parametrize(
    ("kind", "key"), [(kind, key) for kind, spec in SPECS.items() for key in spec.identity.fields]
)
def test_a_model_is_not_fed_by_an_encoder_that_differs_in_any_field(kind: str, key: str) -> None:
    identity: EncoderIdentity = SPECS[kind].identity
    trained_on = identity.model_copy(update={"fields": {**identity.fields, key: "something else"}})

    problems = identity.changes_since(trained_on)

    assert [line.partition(":")[0] for line in problems] == ([] if key in MAY_DIFFER else [key])
    here = identity.model_copy(update={"fields": {**identity.fields, "newer": 1}})
    assert here.changes_since(identity) == []
    assert trained_on.changes_since(here.model_copy(update={"fields": {"newer": 1}})) != []


PROTOCOL: dict[str, Any] = {"outer": "report", "folds": 4, "seeds": 2, "seed": 5, "stop": "judged"}
ORIGIN: dict[str, Any] = {
    "text": "other", "image": {"default": "other"}, "classes": ("x", "y", "z"), "data": "abc",
    "val": "def",
}  # fmt: skip
STUDY: dict[str, Any] = {
    "name": "another",
    "metric": "accuracy",
    "fixed": {"epochs": 3},
    "space": make_study(space={"fusion": ["concat"]}).space,
    "queue": [{"fusion": "concat"}],
    "sampler": Sampler(kind="random"),
    "pruner": PruningRule(kind="halving"),
}


def begun() -> StudyIdentity:
    return StudyIdentity(
        study=make_study(folds=1),
        origin=Origin(text="made up", image="made up", classes=("a", "b", "c")),
    )


def changed(kind: str, field: str) -> StudyIdentity:
    identity = begun()
    if kind == "study":
        return identity.model_copy(
            update={"study": identity.study.model_copy(update={field: STUDY[field]})}
        )
    if kind == "protocol":
        protocol = identity.study.protocol.model_copy(update={field: PROTOCOL[field]})
        return identity.model_copy(
            update={"study": identity.study.model_copy(update={"protocol": protocol})}
        )
    return identity.model_copy(
        update={"origin": identity.origin.model_copy(update={field: ORIGIN[field]})}
    )


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        *(("study", field) for field in StudyConfig.model_fields if field != "protocol"),
        *(("protocol", field) for field in Protocol.model_fields if field != "version"),
        *(("origin", field) for field in Origin.model_fields),
    ],
)
def test_a_study_is_not_gone_on_with_when_any_field_differs(kind: str, field: str) -> None:
    """Also after it was stored: as JSON, by which every field must come back."""
    stored = StudyIdentity.model_validate(begun().model_dump(mode="json"))
    begun().check(stored)
    now = changed(kind, field)
    for one, two in ((now, stored), (begun(), StudyIdentity.model_validate(now.model_dump()))):
        with pytest.raises(SettingsError, match="begun with something else") as raised:
            one.check(two)
        assert {line.partition(":")[0].partition(".")[0] for line in raised.value.problems} == {
            field
        }


def test_the_parts_of_a_study_file_are_told_apart_by_key() -> None:
    stored = begun()
    for part, changes in (("sampler", {"startup": 9}), ("pruner", {"keep": 0.25, "warmup": 1})):
        own: BaseModel = getattr(stored.study, part)
        study = stored.study.model_copy(update={part: own.model_copy(update=changes)})
        with pytest.raises(SettingsError) as raised:
            StudyIdentity(study=study, origin=stored.origin).check(stored)
        assert [line.partition(":")[0] for line in raised.value.problems] == [
            f"{part}.{key}" for key in sorted(changes)
        ]


def trained(**changes: Any) -> RunIdentity:
    model = TrainedModel(setting={"fusion": "concat"}, dims=Dims(8, 6, {}))
    values: dict[str, Any] = {
        "models": [model], "protocol": Protocol(), "averaged": True, "refit": False,
        "origin": begun().origin,
    }  # fmt: skip
    return RunIdentity(**{**values, **changes})


RUN: dict[str, list[Any]] = {
    "models": [
        [TrainedModel(setting={"fusion": "gated"}, dims=Dims(8, 6, {}))],
        [TrainedModel(setting={"fusion": "concat"}, dims=Dims(8, 7, {}))],
        [TrainedModel(setting={"fusion": "concat"}, dims=Dims(8, 6, {}), weight=0.5)],
        [TrainedModel(setting={"fusion": "concat"}, dims=Dims(8, 6, {}), parts=[1])],
    ],
    "protocol": [
        Protocol(**{field: PROTOCOL[field]})
        for field in Protocol.model_fields
        if field
        not in ("version", "stop")  # train has no `stop`: only ablations stop by judged rows
        and PROTOCOL[field] != getattr(Protocol(), field)
    ],
    "averaged": [False],
    "refit": [True],
    "origin": [
        None,
        *(
            begun().origin.model_copy(update={field: ORIGIN[field]})
            for field in Origin.model_fields
        ),
    ],
}


@pytest.mark.parametrize("field", RunIdentity.model_fields)
def test_a_training_takes_up_no_checkpoint_of_another_run(field: str) -> None:
    """The digest of `as_json` is the name of the folder that an interrupted training left."""
    seen = {digest(trained().as_json())}
    for value in RUN[field]:
        now = digest(trained(**{field: value}).as_json())
        assert now not in seen, (field, value)
        seen.add(now)


def test_every_field_of_a_trained_model_has_a_line_in_this_table() -> None:
    same = TrainedModel(setting={"fusion": "concat"}, dims=Dims(8, 6, {}))
    differs = {
        field
        for (model,) in RUN["models"]
        for field in TrainedModel.model_fields
        if getattr(model, field) != getattr(same, field)
    }
    assert differs == TrainedModel.model_fields.keys()
