"""``mmsa doctor``: what it finds in good and in bad places."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from mmsa_cache.compose import doctor
from mmsa_cache.config.settings import Settings
from mmsa_cache.errors import SettingsError
from tests.support.small_work import call, call_json, mmsa
from tests.support.tiny import tiny_toml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["what"]: finding for finding in found["findings"]}


def test_a_fresh_folder(tmp_path: Path, text_model: Path) -> None:
    (tmp_path / "train.csv").write_text("text,image,label\ngood,,positive\nbad,,negative\n")
    (tmp_path / "mmsa.toml").write_text(
        tiny_toml(text_model, "resnet10t", data='root = "train.csv"')
        + '[encoders.big.text]\nmodel = "not-on-this-machine"\n'
    )
    report = call_json(tmp_path, "doctor")
    found = by_name(report)
    assert report["ok"]
    assert "torch 2" in found["versions"]["found"]
    assert found["settings"]["found"] == str(tmp_path / "mmsa.toml")
    assert found["device"]["found"].startswith("cpu")
    assert found["hub"]["state"] == "note"
    assert found["data"]["found"].endswith("layout tables, train")
    assert (found["store"]["state"], found["store"]["cure"]) == ("note", "Run mmsa extract.")
    assert found["text encoder"]["found"] == f"{text_model.name} (random weights)"
    assert found["text encoder big"]["state"] == "note"
    assert "mmsa extract fetches it" in found["text encoder big"]["cure"]
    assert "ok    device" in (shown := call(tmp_path, "doctor"))
    assert "→ mmsa extract fetches it" in shown
    assert not (tmp_path / "cache").exists()


def test_what_stops_a_command_has_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "mmsa.toml").write_text("[data]\nrot = 1\n")
    found = by_name(json.loads(mmsa(tmp_path, "doctor", "--json", code=2).stdout))
    assert found["settings"]["state"] == "bad"
    assert "near: root" in found["settings"]["found"]
    assert found["device"]["state"] == "ok"  # the rest is looked at all the same
    (tmp_path / "mmsa.toml").write_text('[data]\nroot = "nil"\n')
    assert "BAD   data" in mmsa(tmp_path, "doctor", code=3).stdout
    (tmp_path / "mmsa.toml").write_text('device = "cuda:7"\n')
    shown = mmsa(tmp_path, "doctor", code=5).stdout
    assert "CUDA" in shown


def test_a_hub_that_does_not_answer_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    found = doctor._hub(Settings())
    assert found.state == "note"
    assert "http://127.0.0.1:9 does not answer" in found.found


def test_packages_that_are_missing_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"one": "2.0", "old": "0.9", "new": "3.1rc1"}

    def version(name: str) -> str:
        if name not in there:
            raise PackageNotFoundError(name)
        return there[name]

    class About:
        def get_all(self, key: str) -> list[str]:
            return {
                "Requires-Dist": [
                    "one>=1",
                    "gone",
                    'old>=1; extra == "onnx"',
                    "new>=3; extra == 'ray'",
                ]
            }.get(key, ["onnx", "ray", "dev"])

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(doctor, "metadata", lambda name: About())
    assert doctor._unmet(doctor._requirements()) == ["gone is not installed"]
    found = {of.what: of for of in doctor._extras()}
    assert [*found] == ["extra onnx", "extra ray"]
    assert found["extra onnx"].cure == "pip install 'mmsa[onnx]'"
    assert found["extra ray"].state == "ok"


def test_every_extra_says_what_it_is_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {*project["optional-dependencies"]} - {"dev", "mutants"} == {*doctor.PURPOSE}


def test_mistakes_of_the_settings_are_a_finding() -> None:
    def load() -> Settings:
        raise SettingsError("2 setting(s) cannot be used.", "Correct all of them.", ["a", "b"])

    found = next(of for of in doctor.diagnose(load).findings if of.what == "settings")
    assert found.found == "2 setting(s) cannot be used.; a; b"
    assert found.exit_code == 2
