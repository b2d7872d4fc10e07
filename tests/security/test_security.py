"""Caches, models, runs and databases by somebody hostile: no code, no files outside, no flood."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from extract.encoders.image import resolve_image
from extract.encoders.text import TextEncoder, resolve_text
from extract.encoders.transformer import load_model
from fuse.figures.calibration import Calibration
from fuse.search.choice import choose_trial, summarise_studies
from fuse.search.ledger import Ledger
from fuse.setting import Setting
from fuse.training.checkpoints import FolderCheckpoint
from fuse.training.ensemble import Ensemble
from mmsa_cache.errors import (
    CacheError,
    CacheNotFoundError,
    DamagedCacheError,
    DataError,
    MmsaError,
    ModelError,
    SettingsError,
)
from mmsa_cache.features.batch import Dims
from mmsa_cache.files.disk import Disk
from mmsa_cache.files.hashing import digest, file_sha256
from mmsa_cache.store.encoder import ENCODER as RECORD
from mmsa_cache.store.encoder import read_encoder
from mmsa_cache.store.index import INDEX, Index, IndexChange, ShardEntry
from mmsa_cache.store.listing import list_features, remove_features
from mmsa_cache.store.reader import open_features, verify_features
from mmsa_cache.store.shard_bytes import encode
from mmsa_cache.store.shard_file import map_shard
from tests.support import offline_predict
from tests.support.fake_search import ORIGIN, run, start_thread
from tests.support.made_up_run import config_of
from tests.support.pairs import make_pairs
from tests.support.reading import read_split
from tests.support.shards import ENCODER, SHARDS, contents, write


class _Touch:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self._path, "w")


# Shards


def _external(file: h5py.File, outside: Path) -> None:
    shape = file["tokens"].shape
    del file["tokens"]
    file.create_dataset("tokens", shape, "<f2", external=[(str(outside), 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File, outside: Path) -> None:
    shape = file["tokens"].shape
    del file["tokens"]
    layout = h5py.VirtualLayout(shape, "<f2")
    layout[:] = h5py.VirtualSource(str(outside), "x", shape)
    file.create_virtual_dataset("tokens", layout)


def _external_link(file: h5py.File, outside: Path) -> None:
    del file["tokens"]
    file["tokens"] = h5py.ExternalLink(str(outside), "/x")


def _soft_link(file: h5py.File, outside: Path) -> None:
    del file["tokens"]
    file["tokens"] = h5py.SoftLink("/pooled")


def _huge(file: h5py.File, outside: Path) -> None:
    del file["tokens"]
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    space = h5py.h5s.create_simple((1 << 40, 6))
    h5py.h5d.create(file.id, b"tokens", h5py.h5t.IEEE_F16LE, space, plan)


def _compressed(file: h5py.File, outside: Path) -> None:
    data = file["tokens"][:]
    del file["tokens"]
    file.create_dataset("tokens", data=data, compression="gzip")


def _foreign_filter(file: h5py.File, outside: Path) -> None:
    shape = file["tokens"].shape
    del file["tokens"]
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk(shape)
    plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())  # a plug-in's: HDF5 would load a library
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, b"tokens", h5py.h5t.IEEE_F16LE, space, plan)


def _references(file: h5py.File, outside: Path) -> None:
    rows = len(file["operations"])
    del file["operations"]
    dataset = file.create_dataset("operations", (rows,), h5py.ref_dtype)
    dataset[:] = file["pooled"].ref


def _strings_in_a_heap(file: h5py.File, outside: Path) -> None:
    rows = len(file["operations"])
    del file["operations"]
    file.create_dataset("operations", data=["x"] * rows, dtype=h5py.string_dtype())


def _compound(file: h5py.File, outside: Path) -> None:
    rows = len(file["keys"])
    del file["keys"]
    file.create_dataset("keys", (rows, 4), np.dtype([("a", "<i4")]))


def _opaque(file: h5py.File, outside: Path) -> None:
    rows = len(file["keys"])
    del file["keys"]
    kind = h5py.h5t.create(h5py.h5t.OPAQUE, 16)
    h5py.h5d.create(file.id, b"keys", kind, h5py.h5s.create_simple((rows,)))


def _group(file: h5py.File, outside: Path) -> None:
    del file["tokens"]
    file.create_group("tokens")


def _more(file: h5py.File, outside: Path) -> None:
    file.create_dataset("more", data=[1])


def _large_attribute(file: h5py.File, outside: Path) -> None:
    del file["pooled"].attrs["pools"]
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(1 << 20)
    space = h5py.h5s.create_simple((1,))
    h5py.h5a.create(file["pooled"].id, b"pools", kind, space)


def _falling(file: h5py.File, outside: Path) -> None:
    file["offsets"][1] = -5


def _beyond(file: h5py.File, outside: Path) -> None:
    file["offsets"][-1] = 1 << 40


def _wrapping(file: h5py.File, outside: Path) -> None:
    """Each offset is 2**62 or less above the one before, counted as 64-bit numbers wrap."""
    end = file["offsets"][-1]
    file["offsets"][1:4] = [(1 << 63) - 1, -(1 << 63), -(1 << 62)]
    assert (np.diff(file["offsets"][:]) >= 0).all()
    assert file["offsets"][-1] == end


def _no_dimension(file: h5py.File, outside: Path) -> None:
    """Any number of positions without features fits into any file."""
    rows = len(file["keys"])
    pools = file["pooled"].attrs["pools"]
    del file["tokens"], file["pooled"]
    file.create_dataset("tokens", (1 << 40, 0), "<f2")
    file.create_dataset("pooled", (rows, 2, 0), "<f2").attrs["pools"] = pools
    file["offsets"][-1] = 1 << 40


def _fewer_keys(file: h5py.File, outside: Path) -> None:
    keys = file["keys"][:]
    del file["keys"]
    file.create_dataset("keys", data=keys[:, :8])


HOSTILE: list[Callable[[h5py.File, Path], None]] = [
    _external,
    _virtual,
    _external_link,
    _soft_link,
    _huge,
    _compressed,
    _foreign_filter,
    _references,
    _strings_in_a_heap,
    _compound,
    _opaque,
    _group,
    _more,
    _large_attribute,
    _falling,
    _beyond,
    _wrapping,
    _no_dimension,
    _fewer_keys,
]


def resealed(folder: Path, *paths: Path) -> None:
    """Names files by their content and makes an index whose hashes fit, as whoever wrote can."""
    lines = []
    for path, entry in zip(paths, Index.read(folder).entries.values(), strict=True):
        found = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
        changed = ShardEntry.model_validate(entry.model_dump() | found)
        path.rename(folder / changed.file)
        lines.append(IndexChange(add=changed).line())
    (folder / INDEX).write_bytes(b"".join(lines))


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_hostile_shards_are_refused_by_name(
    tmp_path: Path, change: Callable[[h5py.File, Path], None]
) -> None:
    folder = write(tmp_path / "store")
    outside = tmp_path / "outside.h5"
    with h5py.File(outside, "w") as file:
        file["x"] = np.zeros((99, 6), "<f2")
    paths = [folder / entry.file for entry in Index.read(folder).entries.values()]
    with h5py.File(paths[0], "r+") as file:
        change(file, outside)
    resealed(folder, *paths)
    name = next(iter(Index.read(folder).entries))
    opened = outside.stat().st_atime_ns
    why = "attribute pools is" if change is _large_attribute else ""  # seen before it is read
    with pytest.raises(DamagedCacheError, match=rf"{name}\.h5.*{why}"):
        open_features(folder)
    assert len(verify_features(folder)) == 1
    assert outside.stat().st_atime_ns == opened, "a file outside was read"


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path) -> None:
    """A pipe would be waited for without end, a link leads anywhere."""
    folder = write(tmp_path / "store")
    path = folder / list(Index.read(folder).entries.values())[1].file
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DamagedCacheError, match="is no regular file, not a shard"):
        open_features(folder)
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(content)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedCacheError, match="is a link, not a shard"):
        open_features(folder)
    for path in (folder / INDEX, folder / RECORD):
        (tmp_path / path.name).write_bytes(path.read_bytes())
        path.unlink()
        path.symlink_to(tmp_path / path.name)
        with pytest.raises(DamagedCacheError, match=rf"{path.name} cannot be read: Too many"):
            open_features(folder)
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(DamagedCacheError, match="it is no regular file"):
            open_features(folder)
        path.unlink()
        path.write_bytes((tmp_path / path.name).read_bytes())


def _fields(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw["fields"].update(values)


RECORDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "other fields": _fields(size=9),
    "another modality": _fields(modality="image"),
    "an unknown modality": _fields(modality="../.."),
    "a path for a name": _fields(encoder="../../secret"),
    "a number for a name": _fields(encoder=7),
    "fields of no kind": lambda raw: raw.update(fields=7),
    "no fields": lambda raw: raw.pop("fields"),
    "names of numbers": lambda raw: raw.update(names=[1]),
    "told of no kind": lambda raw: raw.update(told=[]),
    "an unknown key": lambda raw: raw.update(more=1),
    "an endless number": lambda raw: raw.update(versions={"a": float("inf")}),
    "no schema": lambda raw: raw.update(schema=None),
    "a later schema": lambda raw: raw.update(schema="9" * 10_000),
    "a list": lambda raw: [raw],
    "a deep one": lambda raw: raw.update(told=json.loads("[" * 500 + "]" * 500)),
}


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("change", RECORDS)
def test_hostile_records_are_refused_by_name(tmp_path: Path, change: str, sealed: bool) -> None:
    """Whether or not their checksum fits, which whoever wrote them can see to."""
    folder = write(tmp_path)
    path = folder / RECORD
    raw = json.loads(path.read_bytes())
    changed = RECORDS[change](raw)
    if sealed:
        del raw["sha256"]
        raw["sha256"] = digest(raw)
    path.write_text(json.dumps(changed if isinstance(changed, list) else raw))
    with pytest.raises(CacheError) as caught:
        open_features(folder)
    assert str(folder) in caught.value.message
    assert len(caught.value.message) < 600
    (info,) = list_features(tmp_path)
    assert info.problem == caught.value.message
    assert info.label == folder.name


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"a":' * 200_000, b"\xff", b"", b"null"])
def test_what_is_no_record_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RECORD).write_bytes(content)
    with pytest.raises(DamagedCacheError, match=r"encoder\.json"):
        read_encoder(tmp_path)


def test_a_flood_of_an_index_is_not_read(tmp_path: Path) -> None:
    folder = write(tmp_path)
    os.truncate(folder / INDEX, 1 << 40)
    with pytest.raises(DamagedCacheError, match=r"index\.jsonl cannot be read: it is larger than"):
        open_features(folder)


def test_prune_keeps_its_hands_off_what_is_no_cache(tmp_path: Path) -> None:
    """``--cache .`` or a planted link must not cost anybody's files."""
    root = tmp_path / "root"
    site = root / "features" / "my" / "site"
    site.mkdir(parents=True)
    (site / INDEX).write_text("{}")
    (site / "index.html").write_text("precious")
    precious = write(tmp_path / "precious")
    own = write(root)
    (own.parent / "linked").symlink_to(precious)
    (own / "notes.txt").write_text("mine")
    (own / "weights.h5").write_text("mine")
    (own / f"{'0' * 16}.h5").symlink_to(precious / RECORD)
    before = contents(precious)
    found = list_features(root)
    assert [item.folder for item in found] == [own]
    states = [removal.state for removal in remove_features(found, really=True)]
    assert states == ["removed but for files that are no cache's"]
    assert {path.name for path in own.iterdir()} == {"notes.txt", "weights.h5"}
    assert contents(precious) == before
    assert (site / "index.html").read_text() == "precious"
    write(root)
    assert (own / "weights.h5").read_text() == "mine", "a writer tidied up what is not its own"


def test_an_interrupted_removal_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path)
    names = [path.name for path in folder.iterdir()]
    real = Disk.remove
    for kept in range(1, len(names)):
        write(tmp_path)
        count = iter(range(kept))

        def failing(disk: Disk, path: Path, count: Any = count) -> None:
            if path.parent == folder and next(count, None) is None:
                raise KeyboardInterrupt
            real(disk, path)

        with monkeypatch.context() as patch:
            patch.setattr(Disk, "remove", failing)
            with pytest.raises(KeyboardInterrupt):
                remove_features(list_features(tmp_path), really=True)
        with pytest.raises(CacheNotFoundError):
            open_features(folder)
        (info,) = list_features(tmp_path)
        assert info.rows == 0
    assert [removal.state for removal in remove_features([info], really=True)] == ["removed"]


# Data


@pytest.mark.parametrize("guid", ["../secret", "/etc/passwd", "a/b", "..", "x\0y", "a\\b"])
def test_guids_do_not_lead_out(tmp_path: Path, guid: str) -> None:
    make_pairs(tmp_path / "posts", 20)
    (tmp_path / "secret.txt").write_text("secret")
    labels = tmp_path / "posts/train.txt"
    labels.write_bytes(labels.read_bytes() + f"{guid},positive\n".encode())
    with pytest.raises(DataError) as caught:
        read_split(tmp_path / "posts", "train")
    assert "secret\n" not in str(caught.value)
    assert "is not a plain file name" in str(caught.value)


def test_links_in_the_data_do_not_lead_out(tmp_path: Path) -> None:
    make_pairs(tmp_path / "posts", 20)
    (tmp_path / "secret.txt").write_text("secret")
    for name in ("0.txt", "1.jpg"):
        (tmp_path / "posts/pairs" / name).unlink()
        (tmp_path / "posts/pairs" / name).symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DataError) as caught:
        read_split(tmp_path / "posts", "train")
    assert caught.value.problems == [
        f"{name}: leads out of the data folder by a link "
        "(allowed with follow_links = true under [data])"
        for name in ("0.txt", "1.jpg")
    ]


# Models


def test_code_in_a_model_folder_does_not_run(
    tmp_path: Path,
    text_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``auto_map`` names code that transformers would run, or ask on the terminal about."""
    folder = tmp_path / "model"
    shutil.copytree(text_model, folder)
    touched = tmp_path / "touched"
    (folder / "evil.py").write_text(
        f"open({str(touched)!r}, 'w')\n"
        "from transformers import BertConfig as Config, BertModel as Model\n"
        "from transformers import PreTrainedTokenizerFast as Tokenizer\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "architectures": ["Model"]}
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {
        "tokenizer_class": "Evil",
        "auto_map": {"AutoTokenizer": [None, "evil.Tokenizer"]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))

    def asked(*_: object) -> str:
        raise AssertionError("the user was asked")

    monkeypatch.setattr("builtins.input", asked)
    spec = resolve_text(str(folder), "random", 16, 0)
    with pytest.raises(ModelError, match="cannot be loaded"):
        TextEncoder(spec, torch.device("cpu"))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(folder, 0)
    with pytest.raises(ModelError, match="is not the folder of a joint image-text model"):
        resolve_text(str(folder), "random", 16, 0, joint=True)
    assert not touched.exists()


def test_foreign_kernels_are_not_fetched(tmp_path: Path, text_model: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(text_model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["attn_implementation"] = "somebody/attention"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="it asks for the foreign kernel somebody/attention"):
        load_model(folder, 0)


def test_pickled_weights_are_not_loaded(tmp_path: Path, text_model: Path) -> None:
    touched = tmp_path / "touched"
    evil = pickle.dumps(_Touch(touched))
    folder = tmp_path / "model"
    shutil.copytree(text_model, folder)
    (folder / "pytorch_model.bin").write_bytes(evil)
    with pytest.raises(ModelError, match="pickled weights are never loaded"):
        resolve_text(str(folder), "pretrained", 16, 0)
    (folder / "model.safetensors").write_bytes(evil)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(folder, None)
    vit = "vit_tiny_patch16_224"
    common: dict[str, Any] = {"mean": None, "std": None, "size": 32, "fit": "crop", "seed": 0}
    (tmp_path / "weights.pth").write_bytes(evil)
    with pytest.raises(ModelError, match="pickled weights are never loaded"):
        resolve_image(vit, str(tmp_path / "weights.pth"), {}, **common)
    renamed = tmp_path / "weights.safetensors"
    renamed.write_bytes(evil)
    with pytest.raises(ModelError, match="cannot be built"):
        resolve_image(vit, str(renamed), {"img_size": 32}, **common).load(torch.device("cpu"))
    for argument in ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained"):
        with pytest.raises(ModelError, match=f"kwargs may not hold {argument}"):
            resolve_image(vit, "random", {argument: str(renamed)}, **common)
    assert not touched.exists()


# Runs and checkpoints


def test_checkpoints_are_never_unpickled(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    path = tmp_path / "run" / "member-0000.safetensors"
    path.parent.mkdir()
    deep = json.dumps({"list": []}).replace("[]", '[{"list": ' * 50_000 + "1" + "}]" * 50_000)
    for number, state in enumerate((None, '{"tensor": "9"}', '{"dict": [[[], 1]]}', "[]", deep)):
        if state is None:
            path.write_bytes(pickle.dumps(_Touch(touched)))
        else:
            save_file({"0": torch.zeros(1)}, path, {"state": state})
        checkpoint = FolderCheckpoint(path.parent)
        if number == 3:
            assert checkpoint.load(0) == []
            continue
        with pytest.raises(ModelError, match=r"member-0000\.safetensors cannot be read"):
            checkpoint.load(0)
    assert not touched.exists()


def test_a_stored_model_takes_no_more_memory_than_its_file(tmp_path: Path) -> None:
    import tracemalloc

    dims = Dims(4, 4, {"text_mean": 4, "image_mean": 4})
    calibration = Calibration.none(3)
    tracemalloc.start()
    for changes in (
        {"text_dim": 10**7, "image_dim": 10**7, "fusion": "combine"},
        {"text_dim": 65_536, "image_dim": 65_536, "fusion": "combine"},
        {"fusion": "encoder", "layers": 10**7},
        {"head": "-".join(["9"] * 5000)},
        {"fusion": "lowrank", "rank": 10**9},
        {"fusion": "lowrank", "rank": 1000, "text_dim": 65_536},
        {"fusion": "kernel", "landmarks": 10**6},
    ):
        with pytest.raises(MmsaError):
            Ensemble.restore(
                [Setting(**changes)],  # type: ignore[arg-type]
                {"0.0.w": torch.zeros(3)},
                calibration,
                [dims],
                [1.0],
            )
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
    peak = int(
        next(
            line.split()[1]
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
    )
    assert peak < 8 << 20  # KiB: 10^7 × 10^7 numbers were not made


def test_hostile_runs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from mmsa_cache.compose.predict.predict import PredictRequest, predict

    run_folder = tmp_path / "runs" / "r"
    run_folder.mkdir(parents=True)
    touched = tmp_path / "touched"
    (run_folder / "model.safetensors").write_bytes(pickle.dumps(_Touch(touched)))
    good = config_of(["a", "b"])
    for content in (
        b"[" * 100_000,
        b"[1]",
        b"{}",
        b'{"classes": 5}',
        b'{"classes": ["a", "b"], "settings": [], "models": 7}',
        pickle.dumps(_Touch(touched)),
        json.dumps(good).encode(),
        json.dumps(good | {"calibration": {"temperature": 0.0, "offsets": []}}).encode(),
        json.dumps(good | {"calibration": {"temperature": 1.0, "offsets": ["x"]}}).encode(),
        json.dumps(good | {"settings": {"trust_remote_code": True}}).encode(),
    ):
        (run_folder / "config.json").write_bytes(content)
        with pytest.raises(ModelError):
            predict(PredictRequest("r", split="test"))
    assert not touched.exists()


# Databases


@pytest.fixture
def database(tmp_path: Path, searched: Path) -> Path:
    return Path(shutil.copy(searched, tmp_path))


def _touching(path: Path) -> str:
    return pickle.dumps(_Touch(path), protocol=0).decode()


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("update trial_user_attributes set value_json=? where key='setting'", "PICKLE"),
        ("update trial_user_attributes set value_json=? where key='setting'", '{"fusion": "x"}'),
        ("update trial_user_attributes set value_json=? where key='setting'", "7"),
        ("update trial_user_attributes set value_json=? where key='result'", '"x"'),
        ("update trial_user_attributes set value_json=? where key='result'", '{"units": [1e999]}'),
        ("update trial_user_attributes set value_json=? where key='result'", "{"),
        ("update trial_user_attributes set value_json=? where key='result'", "[" * 100_000),
        ("update trial_params set distribution_json=?", "PICKLE"),
        ("update trial_params set distribution_json=?", '{"name": "os.system"}'),
        ("update study_user_attributes set value_json=? where key='identity'", "[1]"),
        ("update study_user_attributes set value_json=? where key='selection'", "[1]"),
        ("update study_user_attributes set value_json=? where key='looks'", "[1]"),
        ("update trial_values set value=?", None),
        ("update trials set state=?", "BROKEN"),
    ],
)
def test_hostile_databases_end_in_mmsa_errors(
    database: Path, tmp_path: Path, statement: str, value: str | None
) -> None:
    touched = tmp_path / "touched"
    with sqlite3.connect(database) as connection:
        connection.execute(statement, (_touching(touched) if value == "PICKLE" else value,))
    connection.close()
    raised = 0
    for reading in (
        lambda: summarise_studies(database),
        lambda: choose_trial("best", ORIGIN, database),
        lambda: run(database, tmp_path, 5, start=start_thread),
    ):
        with contextlib.suppress(MmsaError):
            reading()
            continue
        raised += 1
    assert raised, "nobody noticed"
    assert not touched.exists()


def test_an_owner_of_any_name_is_just_dead(database: Path, tmp_path: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("update trials set state='RUNNING' where number=1")
        connection.execute(
            "update trial_user_attributes set value_json=? where key='owner'",
            (json.dumps("../../../../tmp/x" * 50),),
        )
    connection.close()
    record = run(database, tmp_path, 3, start=start_thread)
    assert record["trials"] == {"complete": 3, "pruned": 0, "fail": 0}


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\0" + b"x" * 5000]
)
def test_what_is_no_database_is_said_at_once(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.db").write_bytes(content)
    with pytest.raises(MmsaError, match="is no database, or a damaged one"):
        Ledger(tmp_path / "s.db", "s")


def test_two_that_begin_one_study_agree_on_what_it_is(tmp_path: Path) -> None:
    """Of two searches with other seeds at once, exactly one begins the study."""
    import threading

    ends: list[str] = []

    def one(seed: int) -> None:
        try:
            run(tmp_path / "s.db", tmp_path, 2, start=start_thread, seed=seed)
            ends.append("done")
        except SettingsError as error:
            ends.append(error.problems[0].split(" has ")[0])

    threads = [threading.Thread(target=one, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["done", "seed: the study"]


# Network


@pytest.mark.faults
def test_predicting_opens_no_socket(
    tmp_path: Path,
    text_model: Path,
) -> None:
    """In a network namespace without a network where there may be one, and with sockets refused;
    ``test_sockets.py`` refuses them to every verb within this process."""
    program = offline_predict.__file__
    command = [sys.executable, program, str(tmp_path), str(text_model)]
    alone = ["unshare", "--map-root-user", "--net"]
    try:
        isolated = subprocess.run([*alone, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        isolated = False
    out = subprocess.run(
        [*alone, *command] if isolated else command,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout) == {"split": 12, "pair": 1, "missing model": 4}


def test_encode_gives_what_map_shard_takes(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    path.write_bytes(b"".join(encode([SHARDS[0]], ENCODER.fingerprint)))
    size = path.stat().st_size
    np.testing.assert_array_equal(
        map_shard(path, 4, size, ENCODER.fingerprint).keys, SHARDS[0].keys
    )
    with pytest.raises(DamagedCacheError, match="belongs to another encoder"):
        map_shard(path, 4, size, "0" * 64)
    with pytest.raises(DamagedCacheError, match=r"keys is \(4, 16\)"):
        map_shard(path, 5, size, ENCODER.fingerprint)
