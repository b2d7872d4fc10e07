"""What one command works on is resolved once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from extract.encoders import weights
from extract.encoders.compat import prepare_torchvision
from mmsa_cache.compose.predict.live import live_bank
from mmsa_cache.compose.session import encoders
from mmsa_cache.compose.session import session as session_module
from mmsa_cache.compose.session.origin import origin_of, origin_of_all
from mmsa_cache.compose.session.session import Session
from mmsa_cache.config.loading import load_settings
from mmsa_cache.config.settings import Settings
from mmsa_cache.errors import ModelError
from mmsa_cache.store.identity import EncoderIdentity, Origin
from tests.support.data_folders import mmsa
from tests.support.pairs import make_pairs
from tests.support.tiny import tiny_toml


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    """Extracted posts, with encoders of random weights."""
    folder = tmp_path_factory.mktemp("session")
    make_pairs(folder / "posts", 48)
    (folder / "mmsa.toml").write_text(
        tiny_toml(
            text_model,
            "resnet10t",
            f"""[cache]
dir = "{folder}/cache"
[encoders.short.text]
model = "{text_model}"
weights = "random"
max_tokens = 8
""",
            data=f'root = "{folder}/posts"\nnote = "made up"',
        )
    )
    mmsa(folder, "extract", "--encoders", "all")
    return folder


PAIRS = [("default", "default"), ("short", "default")]


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how often an encoder of a modality is resolved."""
    count: Counter[str] = Counter()
    real = encoders.resolve_encoder

    def counting(settings: Settings, modality: str, *others: Any) -> Any:
        count[modality] += 1
        return real(settings, modality, *others)

    for module in (encoders, session_module):
        monkeypatch.setattr(module, "resolve_encoder", counting)
    return count


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """Counts how often a file of an encoder is hashed."""
    count: Counter[Path] = Counter()
    sha256 = weights.file_sha256

    def counting(path: Path) -> str:
        count[path] += 1
        return sha256(path)

    monkeypatch.setattr(weights, "file_sha256", counting)
    weights._cached_sha256.cache_clear()
    return count


def test_a_session_resolves_and_hashes_once(
    tiny: Path, resolved: Counter[str], hashed: Counter[Path]
) -> None:
    session = Session(load_settings({}, folder=tiny, environ={}))
    bank = session.bank("train", PAIRS)
    assert len(bank) == len(session.samples("train")) == len(session.groups())
    assert origin_of(session, PAIRS) == origin_of(session, PAIRS)
    assert session.encoder_labels(PAIRS)["image"] == "resnet10t (random weights)"
    assert session.notes(PAIRS)[0] == "made up"
    assert len(session.notes(PAIRS)) == 3
    bank.using("short", "default")
    assert resolved == {"text": 2, "image": 1}, "to be compared with those of the store"
    live_bank(session, session.samples("train")[:2])
    live_bank(session, session.samples("train")[:2])
    assert resolved == {"text": 3, "image": 2}, "once more in the precision of this machine"
    assert hashed
    assert set(hashed.values()) == {1}


def test_train_resolves_each_encoder_and_hashes_local_weights_once(
    tiny: Path, resolved: Counter[str], hashed: Counter[Path]
) -> None:
    prepare_torchvision()
    import timm

    local = tiny / "image.safetensors"
    model = timm.create_model("resnet10t", num_classes=0, channels=[8, 8, 8, 8])
    save_file(model.state_dict(), local)
    flags = ("--image-weights", str(local))
    mmsa(tiny, "extract", *flags)
    for count in (resolved, hashed):
        count.clear()
    weights._cached_sha256.cache_clear()
    one = ("--outer", "report", "--folds", "2", "--set", "epochs=1")
    mmsa(tiny, "train", "--name", "once", *one, *flags)
    assert resolved == {"text": 1, "image": 1}
    assert hashed[local] == 1
    assert set(hashed.values()) == {1}


def test_origin_names_caches_by_encoder_only_where_needed(tiny: Path) -> None:
    session = Session(load_settings({}, folder=tiny, environ={}))
    own, every = origin_of(session), origin_of_all(session)
    assert isinstance(own.text, str)
    assert isinstance(every.text, dict)
    assert every.text["default"] == own.text
    assert set(every.text) == {"default", "short"}
    assert origin_of(session, PAIRS).text == every.text
    assert origin_of(session, PAIRS).image == own.image
    bank = session.bank("train", PAIRS)
    assert Path(bank.text.name).name == own.text
    assert Path(bank.using("short", "default").text.name).name == every.text["short"]
    assert Origin.model_validate_json(own.model_dump_json()) == own


def test_other_encoders_than_those_trained_on_are_refused(tiny: Path) -> None:
    settings = load_settings({}, folder=tiny, environ={})
    trained_on = Session(settings).identities()
    assert Session(settings, trained_on=trained_on).encoder("text").label
    other = load_settings({"text.max_tokens": 9}, folder=tiny, environ={})
    session = Session(other, trained_on=trained_on)
    assert session.encoder("image").label
    with pytest.raises(ModelError, match="not the one that the model was trained on") as error:
        session.encoder("text")
    assert error.value.problems == ["max_tokens: the model was trained with 16, here is 9"]


def test_an_identity_is_read_back_from_its_fields(tiny: Path) -> None:
    identity = Session(load_settings({}, folder=tiny, environ={})).encoder("text").identity
    assert identity.random_weights
    assert identity.label.endswith(" (random weights)")
    assert EncoderIdentity.of_fields(identity.fields) == identity
    assert EncoderIdentity.model_validate_json(identity.model_dump_json()) == identity
    assert not identity.changes_since(identity)
    fields = identity.fields | {"compute": "float16", "device": "cuda", "decoder_versions": "new"}
    computed = EncoderIdentity.of_fields(fields)
    assert not computed.changes_since(identity)
    assert not identity.changes_since(computed)
    older = {key: value for key, value in identity.fields.items() if key != "device"}
    assert not identity.changes_since(EncoderIdentity.of_fields(older))
    more = EncoderIdentity.of_fields(identity.fields | {"pool_layers": [1]})
    assert identity.changes_since(more) == [
        "pool_layers: the model was trained with [1], here is (absent)"
    ]
    with pytest.raises(ValueError, match="modality"):
        EncoderIdentity.of_fields({"encoder": "nothing"})
