"""The whole way through the command line, on tiny random-weight encoders and generated pairs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsa_cache.store.index import INDEX
from tests.support.command import COMMAND
from tests.support.pairs import make_pairs
from tests.support.rows import Rows
from tests.support.shards import rows_of
from tests.support.small_work import mmsa


def files(folder: Path) -> dict[str, bytes]:
    """All that a store has for other machines."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def rows(folder: Path) -> dict[str, Rows]:
    """The rows of every encoder."""
    return {path.parent.name: rows_of(path.parent) for path in folder.rglob(INDEX)}


def test_extract_says_what_it_made(extracted: list[dict[str, object]]) -> None:
    assert [(r["split"], r["modality"]) for r in extracted] == [
        ("train", "text"),
        ("train", "image"),
        ("test", "text"),
        ("test", "image"),
    ]
    assert all("(random weights)" in str(r["encoder"]) for r in extracted)
    assert extracted[0]["rows"] == extracted[1]["rows"]
    assert int(str(extracted[0]["rows"])) > 120
    assert extracted[2]["rows"] == 12
    for record in extracted:
        assert record["rows_computed"] == record["rows"]
        assert record["rows_already_there"] == record["rows_shared"] == 0
    assert extracted[0]["directory"] == extracted[2]["directory"], "splits share their features"


def test_second_extract_does_nothing(work: Path, extracted: list[dict[str, object]]) -> None:
    before = files(work / "cache")
    result = mmsa(work, "extract", "--split", "all", "--json")
    assert result.stderr.count("nothing to do") == 4
    said = [line for line in result.stderr.splitlines() if line.startswith("Data: ")]
    assert [line.split(":")[1] for line in said] == [
        " layout report, split train",
        " layout report, split test",
    ]
    assert "12 rows kept (12 unlabelled), 0 of them merged" in said[1]
    assert "0 dropped" in said[1]
    assert files(work / "cache") == before


def test_changed_setting_is_named(
    work: Path, extracted: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMSA_TEXT_MAX_TOKENS", "8")
    result = mmsa(work, "search", "--study", "quick", code=4)
    assert "[text] max_tokens: 8 is set, the store has 16" in result.stderr
    assert "mmsa extract" in result.stderr
    assert "Data: " not in result.stderr  # said when the data was extracted


@pytest.mark.faults
def test_killed_extraction_resumes_to_the_same_rows(
    work: Path, extracted: list[dict[str, object]]
) -> None:
    target = work / "killed"
    process = subprocess.Popen(
        [*COMMAND, "extract", "--split", "all", "--cache", str(target)],
        cwd=work,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(target.rglob(INDEX)):
        assert time.monotonic() < deadline, "no shard was published"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before, whole = rows(target), rows(work / "cache")
    assert before
    assert before != whole
    assert all(found.items() <= whole[name].items() for name, found in before.items())
    again = mmsa(work, "extract", "--split", "all", "--cache", str(target), "--json")
    records = json.loads(again.stdout)
    assert sum(r["rows_already_there"] for r in records) == sum(map(len, before.values()))
    assert sum(r["rows_computed"] for r in records) > 0
    assert rows(target) == whole


@pytest.fixture(scope="module")
def searched(work: Path, extracted: list[dict[str, object]]) -> dict[str, object]:
    one = ("search", "--study", "quick", "--workers", "1")
    mmsa(work, *one, "--trials", "3")
    record: dict[str, object] = json.loads(mmsa(work, *one, "--trials", "5", "--json").stdout)
    return record


def test_search_resumes_to_the_exact_number(work: Path, searched: dict[str, object]) -> None:
    import optuna

    study = optuna.load_study(study_name="quick", storage=f"sqlite:///{work}/studies/studies.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 5
    assert searched["inner_score"] == study.best_value
    lines = [json.loads(x) for x in (work / "studies/quick.jsonl").read_text().splitlines()]
    assert [x["trial"] for x in lines if x["event"] == "trial"] == list(range(5))
    assert [x["event"] for x in lines].count("final") == 2, "one a search"
    alone = work / "alone"
    alone.mkdir(exist_ok=True)
    for name in ("mmsa.toml", "studies/quick.toml"):
        (alone / name).parent.mkdir(exist_ok=True)
        text = (work / name).read_text().replace('"posts"', '"../posts"')
        (alone / name).write_text(text + ('dir = "../cache"\n' if name == "mmsa.toml" else ""))
    shown = mmsa(alone, "search", "--study", "quick", "--trials", "5", "--workers", "1").stdout
    assert shown.splitlines()[2].split()[:2] == ["quick", str(searched["trial"])]
    assert "5 complete, 0 pruned, 0 failed trials; macro_f1; " in shown
    other = optuna.load_study(study_name="quick", storage=f"sqlite:///{alone}/studies/studies.db")
    assert [(t.params, t.value) for t in study.trials] == [
        (t.params, t.value) for t in other.trials
    ]


def test_list_shows_files_and_what_the_database_has(
    work: Path, searched: dict[str, object]
) -> None:
    rows = {r["study"]: r for r in json.loads(mmsa(work, "search", "--list", "--json").stdout)}
    assert rows["quick"]["finished"] == 5
    assert rows["quick"]["best"] == searched["inner_score"]
    assert 0 < rows["quick"]["age_seconds"] < 3600
    assert (rows["default"]["finished"], rows["default"]["best"]) == (0, None)
    lines = mmsa(work, "search", "--list").stdout.splitlines()
    assert lines[0].split() == ["study", "finished", "complete", "pruned", "failed", "best", "age"]
    assert any(line.split()[:3] == ["default", "0", "0"] for line in lines)


def test_bench_search_measures_both_ways(work: Path, extracted: list[dict[str, object]]) -> None:
    flags = ("--study", "quick", "--trials", "2", "--workers", "2", "--json")
    record = json.loads(mmsa(work, "bench", "search", *flags).stdout)
    assert (record["trials"], record["workers"]) == (2, 2)
    assert record["ratio_workers"] == record["seconds_one_worker"] / record["seconds"]
    assert 0 < record["overhead_share"] < 1
    assert 1e8 < record["peak_rss_bytes"] < record["peak_rss_summed_bytes"] < 8e9


def test_train_predict_evaluate(work: Path, searched: dict[str, object]) -> None:
    mmsa(work, "train", "--study", "best", "--name", "one")
    run = work / "runs" / "one"
    assert {p.name for p in run.iterdir()} >= {
        "config.json",
        "env.json",
        "command.txt",
        "metrics.jsonl",
        "metrics.json",
        "predictions.csv",
        "model.safetensors",
    }
    mmsa(work, "predict", "--run", "one", "--split", "test", "--out", "p.csv")
    lines = (work / "p.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["guid", *(str(i) for i in range(120, 132))]
    result = mmsa(work, "evaluate", "--run", "one", "--labels", "posts/answers.csv", "--json")
    found = json.loads(result.stdout)
    answers = dict(x.split(",") for x in (work / "posts/answers.csv").read_text().splitlines()[1:])
    right = np.mean([answers[g] == t for g, t in (line.split(",") for line in lines[1:])])
    assert found["accuracy"] == right
    assert found["rows_seen_in_training"] == 0


def test_live_prediction_equals_the_caches(work: Path, searched: dict[str, object]) -> None:
    if not (work / "runs" / "two").exists():
        mmsa(work, "train", "--study", "quick", "--name", "two")
    cached = json.loads(mmsa(work, "predict", "--run", "two", "--split", "test", "--json").stdout)
    text = (work / "posts/pairs/125.txt").read_text()
    live = json.loads(
        mmsa(
            work,
            "predict",
            "--run",
            "two",
            "--text",
            text,
            "--image",
            "posts/pairs/125.jpg",
            "--json",
        ).stdout
    )
    want = next(row for row in cached if row["guid"] == "125")["probabilities"]
    # Another batch and its padding change float32 sums, float16 rounds them: 2^-10 relative.
    assert live[0]["probabilities"] == pytest.approx(want, abs=2e-3)


def test_wrong_input_has_its_exit_code(work: Path, extracted: list[dict[str, object]]) -> None:
    unknown = mmsa(work, "search", "--study", "nil", code=2).stderr
    assert "There is no study 'nil'" in unknown
    assert (
        "Known: default, demo, kernel, pooled, quick, report-table, tokens, words-and-patches."
        in unknown
    )
    mmsa(work, "extract", "--splitt", "all", code=2)
    mmsa(work, "extract", "--split", "al", code=2)
    assert "--data" in mmsa(work, "extract", "--data", "nowhere", code=3).stderr
    assert "Known:" in mmsa(work, "predict", "--run", "nil", "--split", "test", code=4).stderr
    if not torch.cuda.is_available():
        mmsa(work, "search", "--study", "quick", "--device", "cuda", code=5)


def test_undecodable_pictures_are_all_named(work: Path, tmp_path: Path) -> None:
    make_pairs(tmp_path / "posts", 80)
    for guid in (3, 60):
        path = tmp_path / "posts/pairs" / f"{guid}.jpg"
        path.write_bytes(path.read_bytes()[: 300 + guid])  # equal files would be one row
    result = mmsa(
        work, "extract", "--data", str(tmp_path / "posts"), "--cache", str(tmp_path / "c"), code=3
    )
    assert "3.jpg" in result.stderr
    assert "60.jpg" in result.stderr
    assert "2 sample(s) cannot be read" in result.stderr


def test_help_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys\nfrom mmsa_cache.cli.main import app\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print(sorted({'torch', 'transformers', 'timm', 'optuna'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, check=True
    )
    assert result.stdout.strip() == "[]"


def test_a_joint_model_goes_the_whole_way(work: Path, tmp_path: Path) -> None:
    from transformers import CLIPConfig

    from tests.support.clip import clip_tokenizer

    tokenizer = clip_tokenizer()
    tokenizer.save_pretrained(tmp_path / "clip")
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    CLIPConfig(
        text_config=small
        | {"vocab_size": len(tokenizer), "num_attention_heads": 2}
        | {"eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 1},
        vision_config=small
        | {"hidden_size": 48, "num_attention_heads": 4, "image_size": 64}
        | {"patch_size": 16},
        projection_dim=24,
    ).save_pretrained(tmp_path / "clip")
    (tmp_path / "mmsa.toml").write_text(
        f"""[data]
root = "{work / "posts"}"
[joint]
model = "clip"
weights = "random"
[text]
layer = 2
[extract]
tokens = "pool:2x2"
variants = "none"
"""
    )
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "one.toml").write_text(
        """[protocol]
outer = "grouped"
folds = 2
[fixed]
epochs = 2
batch_size = 32
text_dim = 16
image_dim = 16
beside = true
level = "tokens"
text_pool = "shared"
image_pool = "shared"
[space]
fusion = ["attention_concat"]
"""
    )
    records = json.loads(mmsa(tmp_path, "extract", "--split", "all", "--json").stdout)
    assert {r["encoder"] for r in records} == {"clip (random weights)"}
    assert all(r["bytes"] > 0 for r in records)
    mmsa(tmp_path, "search", "--study", "one", "--trials", "1")
    mmsa(tmp_path, "train", "--study", "one", "--name", "r", "--folds", "2")
    config = json.loads((tmp_path / "runs/r/config.json").read_text())
    assert config["models"][0]["dims"] == {
        "text": 32,
        "image": 48,
        "vectors": {"text_shared": 24, "image_shared": 24},
    }
    cached = json.loads(mmsa(tmp_path, "predict", "--run", "r", "--split", "test", "--json").stdout)
    pair = [work / "posts" / "pairs" / f"{cached[0]['guid']}.{end}" for end in ("txt", "jpg")]
    one = ("--text", pair[0].read_text(), "--image", str(pair[1]))
    live = json.loads(mmsa(tmp_path, "predict", "--run", "r", "--json", *one).stdout)
    for name, value in cached[0]["probabilities"].items():
        assert live[0]["probabilities"][name] == pytest.approx(value, abs=2e-3)
    mmsa(tmp_path, "extract", "--tokens", "none", "--split", "train")
    (tmp_path / "studies" / "one.toml").rename(tmp_path / "studies" / "other.toml")
    failed = mmsa(tmp_path, "search", "--study", "other", "--tokens", "none", code=2)
    assert "was extracted with tokens = 'none'" in failed.stderr


def test_bench_extract_measures_side_by_side(work: Path) -> None:
    record = json.loads(
        mmsa(
            work,
            *("bench", "extract", "--pairs", "64", "--rounds", "2"),
            *("--precision-effect", "--json"),
        ).stdout
    )
    for key in ("end_to_end", "model_only", "textbook"):
        assert record[f"{key}_pairs_per_s"] > 0
    for key in ("model_only", "textbook"):
        rounds = record[f"ratio_{key}_rounds"]
        assert record[f"ratio_{key}"] == pytest.approx(sum(rounds) / 2)
    assert record["pairs"] == 64
    assert record["peak_rss_bytes"] > 100e6
    assert record["padded_float32_bytes"]["text"] == 64 * 4 * 16 * (16 + 2)
    assert record["cache_bytes"]["text"] < record["padded_float32_bytes"]["text"]
    assert record["encoders"]["image"] == "swinv2_tiny_window8_256 (random weights)"
    for modality in ("text", "image"):
        rough, fine = (record["precision_effect"][modality][c] for c in ("bfloat16", "float16"))
        assert 0 < fine["mean_absolute"] < rough["mean_absolute"] < 0.05
        assert 0.99 < rough["mean_cosine"] < 1
