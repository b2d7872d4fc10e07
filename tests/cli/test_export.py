"""``mmsa export``, the model card and the Python interface, on a tiny data set."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import extract
import fuse
import mmsa_cache
from fuse.search.pool import WorkerOptions
from mmsa_cache import ModelError, load_model
from mmsa_cache.compose.export import export as verb_export
from mmsa_cache.compose.export.card import CardContent, render_card
from mmsa_cache.compose.search import workers
from mmsa_cache.escaping import escape_markdown
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.runs.json_lines import JsonLines
from mmsa_cache.runs.trackers import TRACKERS
from mmsa_cache.store.identity import EncoderIdentity
from tests.support.fake_search import start_thread
from tests.support.small_work import QUICK, call, call_json, make_work
from tests.support.tracker_files import read_events, read_mlflow, read_wandb

README = Path(__file__).resolve().parents[2] / "README.md"
TEXT = "good day sun"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = make_work(tmp_path_factory.mktemp("work"), text_model)
    flags = [flag for name in TRACKERS for flag in ("--track", name)]
    call(folder, "train", "--name", "run", *QUICK, "--set", "modality_dropout=0.2", *flags)
    return folder


def test_a_run_is_recorded_wherever_asked(work: Path) -> None:
    lines = JsonLines(work / "runs/run/metrics.jsonl").read()
    events = [(line["event"], line.get("member"), line.get("epoch")) for line in lines]
    epochs = [("epoch", member, epoch) for member in (1, 2) for epoch in (1, 2)]
    assert events == [*epochs, ("final", None, None)]
    accuracy = json.loads((work / "runs/run/metrics.json").read_text())["outer"]["accuracy"]
    assert lines[-1]["figures"]["outer/accuracy"] == accuracy
    (logged,) = JsonLines(work / "runs/log.jsonl").read()
    assert (logged["verb"], logged["name"]) == ("train", "run")
    assert logged["figures"]["outer/accuracy"] == accuracy
    found = {
        "tensorboard": read_events(work / "runs/run/tensorboard"),
        "mlflow": read_mlflow(work / "runs/mlflow.db")[0][0],
        "wandb": read_wandb(work / "runs/wandb")[0][0],
    }
    for name, values in found.items():
        for line in lines[:-1]:
            for key in ("loss", "macro_f1", "learning_rate"):
                at = (f"member-{line['member']}/{key}", line["epoch"])
                assert values[at] == pytest.approx(line[key], rel=1e-6), (name, at)
        assert values["final/outer/accuracy", 0] == pytest.approx(accuracy, rel=1e-6), name
    assert read_mlflow(work / "runs/mlflow.db")[0][1]["text_dim"] == "16"
    assert read_wandb(work / "runs/wandb")[0][1]["text_dim"] == 16


@pytest.fixture(scope="module")
def exported(work: Path) -> Path:
    record = call_json(work, "export", "run", "--to", "out/model", "--format", "onnx")
    assert record["onnx_difference"] <= 1e-5
    assert record["files"].keys() >= {"config.json", "model.safetensors", "README.md", "model.onnx"}
    return work / "out" / "model"


def alone(exported: Path, folder: Path) -> Path:
    """The export in another place, where nothing else is."""
    shutil.copytree(exported, folder / "elsewhere")
    return folder / "elsewhere"


def test_the_folder_predicts_anywhere_as_the_run_does(
    work: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = work / "posts/pairs/85.jpg"
    one = ("--text", TEXT, "--image", str(picture))
    want = call_json(work, "predict", "--run", "run", *one)[0]["probabilities"]
    moved = alone(exported, tmp_path)
    hidden = [(work / name).rename(work / f"{name}.hidden") for name in ("posts", "cache", "runs")]
    try:
        # Data, cache and run are gone; so are the encoders where they lay.
        shutil.copy(hidden[0] / "pairs/85.jpg", tmp_path / "85.jpg")
        one = ("--text", TEXT, "--image", "85.jpg")
        found = call_json(tmp_path, "predict", "--run", "elsewhere", *one)[0]["probabilities"]
        assert found == pytest.approx(want, abs=1e-12)
        model = load_model(moved)
        assert model.predict(TEXT, tmp_path / "85.jpg") == pytest.approx(want, abs=1e-12)
        half = model.predict(TEXT)
        assert sum(half.values()) == pytest.approx(1)
        assert half != pytest.approx(want, abs=1e-6)
        assert model.notes[0] == "drawn by a test"
        with pytest.raises(mmsa_cache.SettingsError, match="neither a text nor a picture"):
            model.predict()
        with pytest.raises(mmsa_cache.SettingsError, match="Neither a data folder is set nor"):
            model.predict_split("test")
    finally:
        for path in hidden:
            path.rename(path.with_suffix(""))
    # Given data, it predicts a split, encoding it now.
    args = ("--split", "test", "--data", str(work / "posts"))
    rows = call_json(tmp_path, "predict", "--run", "elsewhere", *args)
    assert [row["guid"] for row in rows] == [str(i) for i in range(80, 92)]


def test_the_export_names_no_place_of_this_machine(work: Path, exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert config["model_type"] == "mmsa"
    assert config["id2label"] == {"0": "positive", "1": "neutral", "2": "negative"}
    assert re.fullmatch(r"encoders/text/tiny-bert\d+", config["settings"]["text"]["model"])
    assert config["settings"]["data"]["root"] is None
    for path in exported.rglob("*.json"):
        assert str(work) not in path.read_text(), path
    assert str(work) not in (exported / "README.md").read_text()


def test_the_card_is_what_the_hub_reads(work: Path, exported: Path) -> None:
    from huggingface_hub import ModelCard

    found = ModelCard.load(exported / "README.md")
    assert found.data.library_name == "mmsa"
    assert "random-weights" in found.data.tags
    figures = json.loads((work / "runs/run/metrics.json").read_text())["outer"]
    accuracy, f1, _ = found.data.eval_results
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", figures["accuracy"])
    assert f1.metric_value == figures["macro_f1"]
    low, high = accuracy.metric_args["ci95"]
    assert low <= figures["accuracy"] <= high
    assert low < high
    config = json.loads((work / "runs/run/config.json").read_text())
    for said in (
        "**Note:** drawn by a test.",
        "**Note:** mobilenetv2_035 (random weights).",
        f"| accuracy | {figures['accuracy']:.4f} | {low:.4f} … {high:.4f} |",
        "`epochs = 2`",
        "drawn by a test: the figures say nothing about real use.",
        config["encoder_fields"]["image"]["weights"],
        "`text_mean` | (batch, 16)",
    ):
        assert said in found.text, said


@pytest.mark.parametrize("is_copy", [True, False])
def test_the_card_names_a_data_set_of_the_hub(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_copy: bool
) -> None:
    from huggingface_hub import ModelCard

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    sha, run = "0" * 40, RunFolder(work / "runs/run")
    copy = tmp_path / "datasets--me--posts/snapshots" / sha
    root = copy if is_copy else Path(f"hf://datasets/me/posts@{sha}")
    data = run.record.settings.data.model_copy(update={"root": root})
    card = CardContent("run", run.record, run.figures, data, {}, {}, None, None, None, ())
    found = ModelCard(render_card(card)).data
    assert found.datasets == ["me/posts"]
    result = found.eval_results[0]
    assert (result.dataset_type, result.dataset_revision) == ("me/posts", sha)


def test_the_card_lists_encoders_without_weights(work: Path) -> None:
    run = RunFolder(work / "runs/run")
    fields = run.record.encoders["text"]["default"].fields
    kept = {key: fields[key] for key in ("compute", "device", "modality", "storage", "tokens")}
    ngrams = EncoderIdentity.of_fields({**kept, "encoder": "ngrams", "definition": 1})
    text = run.record.encoders["text"] | {"ngrams": ngrams}
    encoders = run.record.encoders | {"text": text}
    record = run.record.model_copy(update={"encoders": encoders})
    card = CardContent(
        "run", record, run.figures, record.settings.data, {}, {}, None, None, None, ()
    )
    assert "| text | ngrams | `none` | definition 1 |" in render_card(card)


def test_text_from_data_stays_text_in_the_card() -> None:
    assert escape_markdown("a|b\n<script> [x](y)") == "a&#124;b &#60;script&#62; &#91;x&#93;(y)"


def test_another_encoder_is_refused(exported: Path, tmp_path: Path) -> None:
    moved = alone(exported, tmp_path)
    (encoder,) = (moved / "encoders/text").glob("tiny-bert*/config.json")
    encoder.write_text(encoder.read_text().replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
    with pytest.raises(ModelError, match="text encoder here is not the one") as raised:
        load_model(moved).predict(TEXT)
    (problem,) = raised.value.problems
    assert problem.startswith("config: the model was trained with")


def test_nothing_is_replaced_unasked_and_nothing_foreign_at_all(
    work: Path, exported: Path, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    shutil.copytree(exported, target)
    (target / "old").touch()
    said = call(work, "export", "run", "--to", str(target), code=2)
    assert "exists already" in said
    assert "--force" in said
    said = call(work, "export", "run", "--to", str(target), "--force", code=2)
    assert "holds what mmsa export did not write: nothing was replaced.\n  - old" in said
    (target / "old").unlink()
    call(work, "export", "run", "--to", str(target), "--force")
    assert not (target / "model.onnx").exists()
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "text").touch()
    said = call(work, "export", "run", "--to", str(foreign), "--force", code=2)
    assert "is not a folder that mmsa export made" in said
    assert (foreign / "text").exists()
    assert "There is no run 'nil'" in call(work, "export", "nil", "--to", "x", code=4)
    wrong = ("--to", str(tmp_path / "x"), "--format", "pt")
    assert "Unknown --format 'pt'" in call(work, "export", "run", *wrong, code=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "thesis"]


def test_a_failed_export_leaves_what_was_there(
    work: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    shutil.copytree(exported, target)

    def fail(card: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(verb_export, "render_card", fail)
    with contextlib.chdir(work), pytest.raises(OSError, match="disk full"):
        verb_export.export(verb_export.ExportRequest("run", target, force=True))
    assert load_model(target).classes == ["positive", "neutral", "negative"]
    monkeypatch.undo()
    # A kill between the two renames of a replacement: the old one comes back.
    target.rename(tmp_path / ".model.replaced")
    (tmp_path / ".model.unfinished").mkdir()
    assert "exists already" in call(work, "export", "run", "--to", str(target), code=2)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def block_of(page: Path) -> str:
    """The Python of a page's section about Python."""
    section = page.read_text(encoding="utf-8").partition("## In Python\n")[2]
    found = re.search(r"```python\n(.*?)```", section, re.S)
    assert found
    return found[1]


def test_the_readmes_python_runs_as_it_stands(
    work: Path, exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    block = block_of(README)
    assert len(block.split("\n\n")[1].splitlines()) == 5
    monkeypatch.setattr(
        workers, "WorkerOptions", functools.partial(WorkerOptions, start=start_thread)
    )
    monkeypatch.chdir(work)
    shutil.copy("posts/pairs/85.jpg", "picture.jpg")
    shutil.copytree(exported, "exports/mine")
    exec(block.replace("trials=50", "trials=2"), found := {})
    first, second = capsys.readouterr().out.splitlines()
    run, study = found["run"], found["study"]
    assert first == f"{run.figures.outer.macro_f1} {study.best.values}"
    assert second in run.classes
    assert [trial.number for trial in mmsa_cache.Study("default").trials] == [0, 1]
    for name in ("best", "exports/mine"):
        assert mmsa_cache.Run(name).predict("what a day", "picture.jpg") in run.classes


def test_fuses_python_runs_as_it_stands(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = block_of(README.parent / "fuse/README.md")
    assert len(block.split("\n\n")[1].splitlines()) <= 10
    with contextlib.chdir(work):
        exec(block, found := {})
    printed = float(capsys.readouterr().out)
    rows, judged = found["probabilities"], found["judged"]
    labels = found["bank"].labels.numpy()[judged]
    assert rows.shape == (len(judged), 3)
    want = fuse.probability_score(labels, rows, ["a", "b", "c"]).macro_f1
    assert printed == want
    assert np.allclose(rows.sum(1), 1)


PUBLIC = {
    "mmsa_cache": "Batch CacheError CacheNotFoundError DamagedCacheError DataError DeviceError "
    "Dims FeatureBank FusionClassifier MmsaError ModelError Predictor Run Sample Session Settings "
    "SettingsError StaleCacheError Study check classes_of duplicate_groups extract grouped_folds "
    "live_bank load_model load_samples load_settings make_demo open open_bank outer_split search "
    "train",
    "fuse": "Blend Calibration Ensemble FUSIONS Fit LOSSES MultimodalClassifier Setting Task "
    "Trained bootstrap build build_loss build_model calibrate export_onnx fit fit_group "
    "onnx_inputs predict probability_score summarise train",
    "extract": "Options augment_image augment_text encode_rows plan_rows resolve_image "
    "resolve_joint_image resolve_text",
}


@pytest.mark.parametrize("package", [mmsa_cache, fuse, extract])
def test_public_names_are_these_and_documented(package: object) -> None:
    name = package.__name__  # type: ignore[attr-defined]
    assert package.__all__ == PUBLIC[name].split()  # type: ignore[attr-defined]
    for public in PUBLIC[name].split():
        value = getattr(package, public)
        if callable(value):
            assert value.__doc__, public
            assert not value.__doc__.startswith(f"{public}("), f"{public}: made by dataclass"
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nil'"):
        package.nil  # type: ignore[attr-defined]  # noqa: B018
    code = (
        f"import {name} as m, sys; print({{'torch', 'numpy', 'pydantic'}} & set(sys.modules)); "
        "print(set(m.__all__) - set(dir(m)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["set()", "set()"]


@pytest.mark.faults
def test_kills_leave_a_whole_folder_or_none(work: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    command = [sys.executable, "-m", "mmsa_cache", "export", "run", "--to", str(target), "--force"]
    started = time.monotonic()
    subprocess.run(command, cwd=work, check=True, capture_output=True)
    whole = time.monotonic() - started
    rng = np.random.default_rng(0)
    for _ in range(8):
        process = subprocess.Popen(command, cwd=work, stderr=subprocess.DEVNULL)
        time.sleep(float(rng.uniform(0.5, 1.0)) * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = target if target.exists() else tmp_path / ".model.replaced"
        assert load_model(found).predict(TEXT)
    subprocess.run(command, cwd=work, check=True, capture_output=True)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
