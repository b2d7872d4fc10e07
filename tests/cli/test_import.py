"""``mmsa cache import``: features of other programs, selected, trained on, or refused whole."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmsa_cache.compose.imports import source
from mmsa_cache.compose.imports.features import import_features
from mmsa_cache.compose.imports.files import ImportRequest
from mmsa_cache.compose.imports.matching import guids_by_order, match_rows
from mmsa_cache.config.loading import load_settings
from mmsa_cache.data.stored_split import read_split, split_path
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import DataError, SettingsError
from mmsa_cache.store.keys import content_keys
from mmsa_cache.store.reader import Features, open_features
from tests.support.small_work import QUICK, call, call_json, make_work, mmsa

ROWS, DIM = 80, 6


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    return make_work(tmp_path_factory.mktemp("import"), text_model)


@pytest.fixture
def cache(work: Path, tmp_path: Path) -> Path:
    """A store with the rows of the training split, and features of its pictures."""
    shutil.copytree(work / "cache", tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache/features/text")
    return tmp_path / "cache"


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ROWS, DIM)).astype(np.float32)


def guids_of(cache: Path) -> list[str]:
    return read_split(split_path(cache, "train"))[1].guids


def request(*files: Path, **values: Any) -> ImportRequest:
    return ImportRequest(**{"modality": "text", "name": "ours", "files": files, **values})


def taken(cache: Path, *files: Path, **values: Any) -> Any:
    """What becomes of files that are imported."""
    return import_features(settings_of(cache), request(*files, **values))


def settings_of(cache: Path, **values: Any) -> Any:
    return load_settings({"cache.dir": cache, **values}, folder=cache.parent, environ={})


def problems(cache: Path, *files: Path, **values: Any) -> str:
    """What is wrong with files; nothing of them may be published."""
    before = sorted(cache.rglob("*"))
    with pytest.raises(DataError) as caught:
        taken(cache, *files, **values)
    assert sorted(cache.rglob("*")) == before
    return "\n".join([caught.value.message, *caught.value.problems])


def rows_in(cache: Path, features: Features) -> tuple[np.ndarray, list[np.ndarray]]:
    """Pooled vectors and positions of the training samples, in their order."""
    samples = read_split(split_path(cache, "train"))[1]
    places = features.find_rows(content_keys(samples.digests("text")))
    assert (places >= 0).all()
    shards = np.searchsorted(features.starts, places, side="right") - 1
    pooled, tokens = [], []
    for shard, at in zip(shards, places, strict=True):
        found, row = features.shards[shard], at - features.starts[shard]
        pooled.append(found.pooled[row, 0])
        tokens.append(found.tokens[found.offsets[row] : found.offsets[row + 1]])
    return np.stack(pooled), tokens


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def lines(path: Path, names: list[str]) -> Path:
    path.write_text("".join(f"{name}\n" for name in names))
    return path


def test_npy_in_the_order_of_the_split_is_selected_and_trained_on(
    work: Path, cache: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    file = save(tmp_path / "ours.npy", vectors)
    flags = ("--cache", str(cache))
    said = mmsa(work, "cache", "import", "--modality", "text", "--name", "ours", str(file), *flags)
    assert "The 80 rows have no names: taken to be in the order of the split train." in said.stderr
    features = open_features(next((cache / "features/text").glob("ours-*")))
    pooled, tokens = rows_in(cache, features)
    np.testing.assert_array_equal(pooled, vectors.astype(np.float16))
    assert [len(t) for t in tokens] == [0] * ROWS
    fields = features.encoder.identity.fields
    assert (fields["encoder"], fields["imported"], fields["dim"]) == ("ours", True, DIM)
    keys = content_keys(read_split(split_path(cache, "train"))[1].digests("text"))
    expected = hashlib.sha256(hashlib.sha256(file.read_bytes()).digest() + keys.tobytes())
    assert fields["weights"] == f"sha256:{expected.hexdigest()}"
    assert not features.encoder.identity.random_weights
    listed = {r["encoder"]: r for r in call_json(work, "cache", "ls", *flags)}
    assert (listed["ours"]["complete"], listed["ours"]["unused"]) == ({"train": 1.0}, 0)
    assert listed["ours"]["compute"] == "float32 imported"
    # mmsa.toml names another text model, which is not there: the imported one is named by a flag
    assert "it holds ours" in call(work, "train", "--name", "no", *flags, code=4)
    call(work, "train", "--name", "r", *QUICK, *flags, "--text-model", "ours")
    config = json.loads((work / "runs/r/config.json").read_text())
    assert config["models"][0]["dims"]["text"] == DIM
    assert config["encoders"]["text"] == "ours"
    failed = call(work, "predict", "--run", "r", "--text", "a", code=4)
    assert "The text features of ours were imported" in failed


def test_it_is_the_one_that_is_meant_where_it_is_the_only_one(
    cache: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    from mmsa_cache.compose.session.session import Session

    taken(cache, save(tmp_path / "ours.npy", vectors))
    session = Session(settings_of(cache))
    bank = session.bank("train")
    np.testing.assert_array_equal(bank.text.pooled[:, 0].numpy(), vectors.astype(np.float16))
    assert session.encoder_labels()["text"] == "ours"
    assert Session(settings_of(cache, **{"text.model": "ours"})).encoder_labels()["text"] == "ours"


def test_extraction_leaves_imported_features_alone(
    work: Path, cache: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    taken(cache, save(tmp_path / "ours.npy", vectors))
    flags = ("--cache", str(cache), "--split", "all", "--text-model", "ours")
    said = mmsa(work, "extract", *flags).stderr
    assert "text features: ours, imported; nothing to do." in said
    assert "text features: ours, imported; 12 rows are missing: import them." in said
    assert [p.name[:5] for p in (cache / "features/text").iterdir() if p.name[0] != "."] == [
        "ours-"
    ]


def test_copies_are_left_out_and_that_is_said(
    work: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    flags = ("--cache", str(tmp_path / "cache"))
    file = save(tmp_path / "ours.npy", vectors)
    call(work, "extract", *flags, "--variants", "2")
    how = ("--modality", "text", "--name", "ours", str(file))
    said = mmsa(work, "cache", "import", *how, *flags).stderr
    assert "imported features are of originals only; train has augmented copies" in said
    from mmsa_cache.compose.session.session import Session

    session = Session(settings_of(tmp_path / "cache", **{"text.model": "ours"}))
    bank = session.bank("train")
    assert bank.image.table.shape == (ROWS, 3)
    assert bank.text.table.shape == (ROWS, 1)
    assert len(bank.items(range(ROWS), variants=True)) == ROWS
    listed = {r["encoder"]: r["complete"] for r in call_json(work, "cache", "ls", *flags)}
    assert listed["ours"] == {"train": 1.0}


def test_without_a_table_the_data_is_read_and_the_table_written(
    work: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    names = [str(i) for i in range(ROWS)]
    file, listed = save(tmp_path / "a.npy", vectors), lines(tmp_path / "names", names[::-1])
    how = ("--modality", "image", "--name", "ours", str(file), "--guids", str(listed))
    result = call_json(work, "cache", "import", *how, "--cache", str(tmp_path / "cache"))
    assert (result[0]["rows"], result[0]["splits"]) == (ROWS, {"train": ROWS})
    about, samples = read_split(split_path(tmp_path / "cache", "train"))
    assert about == read_split(split_path(work / "cache", "train"))[0].model_copy(
        update={"told": about.told}
    )
    assert samples == read_split(split_path(work / "cache", "train"))[1]
    assert len(read_split(split_path(tmp_path / "cache", "test"))[1]) == 12
    features = open_features(next((tmp_path / "cache/features/image").glob("ours-*")))
    place = features.find_rows(content_keys(samples.digests("image")))[0]
    np.testing.assert_array_equal(features.shards[0].pooled[place, 0], vectors[-1].astype("f2"))


@pytest.mark.parametrize("form", ["offsets", "lengths", "whole", "parquet"])
def test_positions_are_kept_and_their_mean_made(cache: Path, tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(2)
    counts = np.full(ROWS, 3) if form == "whole" else rng.integers(1, 5, ROWS)
    rows = [rng.normal(size=(count, DIM)).astype(np.float32) for count in counts]
    guids = guids_of(cache)
    order = rng.permutation(ROWS)
    names, mixed = [guids[i] for i in order], [rows[i] for i in order]
    file = tmp_path / "tokens.npz"
    if form == "parquet":
        file = tmp_path / "tokens.parquet"
        table = pa.table({"guid": names, "tokens": [r.tolist() for r in mixed]})
        kind = pa.list_(pa.list_(pa.float32()))
        table = table.set_column(1, "tokens", table["tokens"].cast(kind))
        pq.write_table(table, file)
    elif form == "whole":
        np.savez(file, features=np.stack(mixed), guids=names)
    else:
        lengths = np.array([len(r) for r in mixed])
        ends = lengths if form == "lengths" else np.concatenate([[0], np.cumsum(lengths)])
        np.savez_compressed(file, features=np.concatenate(mixed), guids=names, **{form: ends})
    result = taken(cache, file)
    assert (result.tokens, result.dim, result.rows_new) == (True, DIM, ROWS)
    pooled, tokens = rows_in(cache, open_features(Path(result.directory)))
    for want, have, mean in zip(rows, tokens, pooled, strict=True):
        np.testing.assert_array_equal(have, want.astype(np.float16))
        np.testing.assert_allclose(mean, want.astype(np.float64).mean(0), atol=2e-3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_parquet_and_npz_of_every_width_find_their_samples(
    cache: Path, vectors: np.ndarray, tmp_path: Path, dtype: str
) -> None:
    guids, order = guids_of(cache), np.random.default_rng(3).permutation(ROWS)
    mixed, names = vectors[order].astype(dtype), [guids[i] for i in order]
    np.savez(tmp_path / "a.npz", features=mixed, guids=np.array(names, "S"))
    found = [taken(cache, tmp_path / "a.npz", name="npz")]
    if dtype != ">f4":
        kind = {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}[dtype]
        for place, lists in enumerate([pa.list_(kind), pa.list_(kind, DIM)]):
            flat = pa.array(mixed.reshape(-1), kind)
            column = (
                pa.ListArray.from_arrays(np.arange(ROWS + 1, dtype="i4") * DIM, flat)
                if place == 0
                else pa.FixedSizeListArray.from_arrays(flat, DIM)
            )
            assert column.type == lists
            file = tmp_path / f"{place}.parquet"
            pq.write_table(pa.table({"name": names, "embedding": column}), file, row_group_size=30)
            found.append(taken(cache, file, name=f"parquet{place}", guid_column="name"))
    for result in found:
        pooled, _ = rows_in(cache, open_features(Path(result.directory)))
        np.testing.assert_array_equal(pooled, vectors.astype(dtype).astype(np.float16))


@pytest.mark.parametrize("column", ["image_path", "key", "post"])
def test_the_output_of_clip_retrieval(
    cache: Path, vectors: np.ndarray, tmp_path: Path, column: str
) -> None:
    guids, folder = guids_of(cache), tmp_path / "out"
    (folder / "metadata").mkdir(parents=True)
    for number, part in enumerate(np.array_split(np.arange(ROWS), 11)):
        save(folder / f"text_emb/text_emb_{number}.npy", vectors[part].astype(np.float16))
        save(folder / f"img_emb/img_emb_{number}.npy", -vectors[part].astype(np.float16))
        names = [f"/photos/{guids[i]}.jpg" if column == "image_path" else guids[i] for i in part]
        table = pa.table({"caption": ["x"] * len(part), column: names})
        pq.write_table(table, folder / f"metadata/metadata_{number}.parquet")
    given = {"guid_column": "post"} if column == "post" else {}
    for modality, sign in (("text", 1), ("image", -1)):
        result = taken(cache, folder, modality=modality, **given)
        assert (result.rows, result.dim, result.tokens) == (ROWS, DIM, False)
        if modality == "text":
            pooled, _ = rows_in(cache, open_features(Path(result.directory)))
            np.testing.assert_array_equal(pooled, sign * vectors.astype(np.float16))
    if column == "post":
        said = problems(cache, folder)
        assert "metadata_0.parquet: it has no column image_path, but caption, post" in said
    (folder / "metadata/metadata_3.parquet").unlink()
    assert "11 files text_emb/text_emb_N.npy and 10 metadata" in problems(cache, folder)


def test_every_problem_is_named_at_once(cache: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    guids = guids_of(cache)
    vectors[3, 1], vectors[4, 5], vectors[5, 0], vectors[6, 2] = np.nan, -np.inf, 65505, 65504
    names = [*guids[:78], guids[0], "stranger"]
    listed = lines(tmp_path / "names", names)
    file = save(tmp_path / "bad.npy", vectors)
    said = problems(cache, file, guids=listed)
    assert "7 problem(s) with the features to import." in said
    for line in (
        f"guid {guids[0]}: 2 rows have it",
        f"guid {guids[78]}: train has it, the files do not",
        f"guid {guids[79]}: train has it, the files do not",
        "guid stranger: no sample of train has this name",
        f"{file}: guid {guids[3]}: feature 1 is NaN",
        f"{file}: guid {guids[4]}: feature 5 is infinite",
        f"{file}: guid {guids[5]}: feature 0 is 65505: float16 ends at 65504",
    ):
        assert line in said.splitlines()
    two = [save(tmp_path / "1.npy", vectors[:40]), save(tmp_path / "2.npy", vectors[40:, :5])]
    assert f"{two[1]}: dim 5, {two[0]} has 6" in problems(cache, *two)
    save(two[1], vectors[40:].astype(np.float64))
    assert "dtype float64," in problems(cache, *two)
    assert "The files have 40 rows without names; the splits have: train 80." in problems(
        cache, two[0]
    )
    assert "names has 80 names, the files have 40 rows" in problems(cache, two[0], guids=listed)


def test_rows_of_parquet_that_do_not_fit_are_named(cache: Path, tmp_path: Path) -> None:
    guids = guids_of(cache)
    rows: list[Any] = [[1.0, 2.0]] * ROWS
    rows[2], rows[3], rows[4], rows[5] = [1.0], None, [None, 1.0], []
    pq.write_table(pa.table({"guid": guids, "embedding": rows}), tmp_path / "a.parquet")
    said = problems(cache, tmp_path / "a.parquet")
    assert f"guid {guids[2]}: it has 1 features, the first row has 2" in said
    assert f"guid {guids[3]}: it has no features" in said
    assert f"guid {guids[4]}: feature 0 is NaN" in said
    assert f"guid {guids[5]}: it has 0 features, the first row has 2" in said
    tokens: list[Any] = [[[1.0, 2.0]]] * ROWS
    tokens[1], tokens[2] = [], [[1.0, 2.0], [1.0]]
    pq.write_table(pa.table({"guid": guids, "tokens": tokens}), tmp_path / "b.parquet")
    said = problems(cache, tmp_path / "b.parquet")
    assert f"guid {guids[1]}: it has no features" in said
    assert f"guid {guids[2]}: it has 1 features, the first row has 2" in said


def test_equal_contents_with_other_features_count_once(
    tmp_path: Path, vectors: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.support.pairs import make_pairs

    make_pairs(tmp_path / "posts", ROWS + 12)
    for twin in ("4", "7"):
        (tmp_path / f"posts/pairs/{twin}.txt").write_text("the same")
    settings = settings_of(tmp_path / "cache", **{"data.root": tmp_path / "posts"})
    found = import_features(settings, request(save(tmp_path / "a.npy", vectors)))
    assert (found.rows, found.rows_new, found.rows_shared) == (ROWS, ROWS - 1, 1)
    assert "1 rows have the same content as an earlier row, but other features" in (
        capsys.readouterr().err
    )
    pooled, _ = rows_in(tmp_path / "cache", open_features(Path(found.directory)))
    np.testing.assert_array_equal(pooled[7], vectors[4].astype(np.float16))
    again = import_features(settings, request(tmp_path / "a.npy"))
    assert again.rows_new == 0
    assert "79 rows were in the store, and stay as they are." in capsys.readouterr().err


def test_two_splits_of_one_encoder_have_one_name_of_weights(
    work: Path, cache: Path, vectors: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(work, "extract", "--split", "test", "--cache", str(cache), "--image-model", "resnet10t")
    shutil.rmtree(cache / "features/text")
    both = [save(tmp_path / "a.npy", vectors), save(tmp_path / "b.npy", vectors[:12])]
    for file in both:
        found = taken(cache, file, weights="v1")
    assert len([p for p in (cache / "features/text").iterdir() if p.is_dir()]) == 1
    assert found.splits == {"test": 12}
    assert "No row is of the split train." in capsys.readouterr().err
    flags = ("--cache", str(cache), "--text-model", "ours")
    call(work, "train", "--name", "both", *QUICK, *flags, "--image-model", "mobilenetv2_035")
    call(work, "extract", "--split", "test", *flags)
    rows = call_json(work, "predict", "--run", "both", "--split", "test", "--cache", str(cache))
    assert len(rows) == 12
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in rows)
    capsys.readouterr()
    taken(cache, both[0])
    assert "import them with the same --weights-name" in capsys.readouterr().err


def test_rows_without_names_are_of_the_one_split_of_as_many(work: Path) -> None:
    samples = read_split(split_path(work / "cache", "train"))[1]
    splits = {"train": samples[:5], "test": samples[5:8]}
    assert guids_by_order(splits, 3) == ("test", samples.guids[5:8])
    with pytest.raises(DataError, match=r"the splits have: train 5, test 3") as caught:
        guids_by_order(splits, 4)
    assert caught.value.hint == "Name them with --guids FILE, one a line."
    with pytest.raises(DataError) as caught:
        guids_by_order({"train": samples[:5], "test": samples[5:10]}, 5)
    assert caught.value.hint.endswith("or choose with --split.")


def test_a_name_in_two_splits_is_one_sample_only_with_one_content(work: Path) -> None:
    samples = read_split(split_path(work / "cache", "train"))[1]
    other = samples.table.slice(1, 2).set_column(0, "guid", [samples.guids[:2]])
    splits = {"train": samples[:2], "test": SampleTable(other.cast(samples.table.schema))}
    placed, problems = match_rows(samples.guids[:2], splits, "text")
    assert placed.splits == {"train": 2, "test": 2}
    assert [p.partition(": ")[2] for p in problems] == [
        "it is in several splits, with different contents; give --split"
    ] * 2
    assert match_rows(samples.guids[:2], {"a": samples[:2], "b": samples[:2]}, "text")[1] == []


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    """An array whose header says anything."""
    padded = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(padded).to_bytes(2, "little") + padded + data


def head(shape: str, descr: str = "<f4", order: str = "False") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it cannot be read"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "it cannot be read"),
        (npy(head("(80, 1000000)")), "its header says (80, 1000000) float32"),
        (npy(head("(1 << 60, 6)"), b"0" * 8), "it cannot be read"),
        (npy(head("(9223372036854775807, 4)"), b"0" * 8), "8 are there"),
        (npy(head("(-80, -6)"), b"0" * 1920), "its shape is (-80, -6)"),
        (npy(head("(80, True)"), b"0" * 320), "its shape is (80, True)"),
        (npy(head("(80, 6)"), b"0" * 1919), "1919 are there"),
        (npy(head("(80, 6)"), b"0" * 1921), "1921 are there"),
        (npy(head("(80, 6)", order="True"), b"0" * 1920), "its columns are stored first"),
        (npy(head("(80, 6)", "|O"), b"0" * 3840), "it holds Python objects"),
        (npy(head("(80, 6)", "<i4"), b"0" * 1920), "its dtype is int32"),
        (npy(head("(480,)"), b"0" * 1920), "its shape is (480,)"),
        (npy(head("(80, 0)")), "it is empty"),
        (npy(head("(81, 6)"), b"0" * 1944), "the files have 81 rows, the splits of the store 80"),
        (npy(head("(1, 100000)"), b"0" * 400000), "too large for features"),
        (npy("__import__('os').system('x')"), "it cannot be read"),
        (npy("[" * 2000), "it cannot be read"),
    ],
)
def test_arrays_that_lie_are_refused(
    cache: Path, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    tracemalloc.start()
    found = problems(cache, tmp_path / "a.npy")
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
    assert said in found


def zipped(path: Path, compression: int = zipfile.ZIP_DEFLATED, **members: Any) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            if not isinstance(content, bytes):
                buffer = io.BytesIO()
                np.save(buffer, content)
                content = buffer.getvalue()
            file.writestr(f"{name}.npy", content)
    return path


def test_archives_that_lie_are_refused(cache: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    guids = np.array(guids_of(cache))
    path = tmp_path / "a.npz"

    def refused(how: int = zipfile.ZIP_DEFLATED, **members: Any) -> str:
        return problems(cache, zipped(path, how, **{"guids": guids, **members}))

    bomb = npy(head("(80, 400000000)"), bytes(1 << 20))
    assert "features: its header says (80, 400000000)" in refused(features=bomb)
    wide = npy(head("(80, 65537)"), bytes(80 * 65537 * 4))
    assert "too large for features" in refused(features=wide)
    assert "it holds ['guids.npy'], expected features and guids" in refused()
    assert "another way than NumPy" in refused(zipfile.ZIP_BZIP2, features=vectors)
    objects = npy(head("(80,)", "|O"), b"\x80\x04.")
    assert "guids: it holds Python objects" in refused(features=vectors, guids=objects)
    assert "it has 80 rows and 79 guids" in refused(features=vectors, guids=guids[:79])
    assert "guids: it has 81 names, the store's splits have 80" in refused(
        features=vectors, guids=np.array(["x"] * 81)
    )
    long = npy(head("(1,)", "<U1000000"), bytes(4000000))
    assert "its names are too long" in refused(features=vectors, guids=long)
    for offsets in ([0, 5, 3, 80], [1, 80], [0, 79], [0, 81], [-1, 80], [0, 2**62, 80], [80], []):
        found = refused(features=vectors, offsets=np.array(offsets, np.int64))
        assert "offsets: " in found
    wrapping = np.array([2**63, 2**63, 80], np.uint64)
    assert "lengths: they leave the 80 positions" in refused(features=vectors, lengths=wrapping)
    for number in (0xD800, 0xFFFFFFFF):  # half of a character, and none at all
        names = np.array([number], "<u4").view("<U1").repeat(80)
        assert "guids: it cannot be read: 'utf-32-le'" in refused(features=vectors, guids=names)
    zipped(path, features=vectors, guids=guids)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("guids.npy", b"")
    assert "it holds two arrays of one name" in problems(cache, path)
    zipped(path, features=vectors, guids=guids)
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    assert "cannot be read" in problems(cache, path)


def test_parquet_that_lies_is_refused(cache: Path, tmp_path: Path) -> None:
    guids, path = guids_of(cache), tmp_path / "a.parquet"

    def refused(**columns: Any) -> str:
        pq.write_table(pa.table(columns), path)
        return problems(cache, path)

    one = [[1.0]] * ROWS
    assert "it has 81 rows, the store's splits have 80" in refused(guid=["x"] * 81)
    assert "its columns are guid; expected is embedding" in refused(guid=guids)
    assert "embedding is list<element: int64>" in refused(guid=guids, embedding=[[1]] * ROWS)
    assert "embedding is string" in refused(guid=guids, embedding=guids)
    assert "it has no column guid" in refused(embedding=one)
    assert "guid lacks names" in refused(guid=[None, *guids[1:]], embedding=one)
    assert "guid: a name is too long" in refused(guid=["x" * 5000, *guids[1:]], embedding=one)
    assert "has no features at all" in refused(
        guid=guids, embedding=pa.array([[]] * ROWS, pa.list_(pa.float32()))
    )
    # a dictionary and a run length give a million numbers in a few bytes
    many = [[1.0]] * (ROWS - 1) + [[1.0] * (1 << 20)]
    assert "claims 1048655 numbers in 80 rows of 1" in refused(guid=guids, embedding=many)
    large = pa.table([["0" * 300_000] * ROWS, one], ["a.b", "embedding"])
    pq.write_table(large, path, compression="zstd", use_dictionary=False)
    assert "a.b claims" in problems(cache, path, guid_column="a.b")
    for name in ("guid", "embedding"):
        pq.write_table(pa.table([guids, one, guids], ["guid", "embedding", name]), path)
        assert f"several columns are called {name}" in problems(cache, path)
    path.write_bytes(b"PAR1 no PAR1")
    assert "it cannot be read" in problems(cache, path)
    os.mkfifo(tmp_path / "b.parquet")
    assert "there is no such file" in problems(cache, tmp_path / "b.parquet")
    assert "expected is .npy, .npz, .parquet" in problems(cache, tmp_path / "c.pkl")


def test_pieces_bound_the_memory(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "PIECE_BYTES", 1 << 20)
    wide = np.zeros((ROWS, 64, 1024), np.float32)  # 20 MiB, a row a quarter of one
    wide += np.arange(ROWS, dtype=np.float32)[:, None, None]
    np.savez(tmp_path / "a.npz", features=wide, guids=guids_of(cache))
    del wide
    tracemalloc.start()
    found = taken(cache, tmp_path / "a.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20  # that of the merge of the shards at its end, in float16
    features = open_features(Path(found.directory))
    pooled, tokens = rows_in(cache, features)
    np.testing.assert_array_equal(pooled[:, 0], np.arange(ROWS))
    assert {t.shape for t in tokens} == {(64, 1024)}


def test_requests_that_are_none_are_refused(cache: Path, tmp_path: Path) -> None:
    for values, said in (
        ({"modality": "sound"}, "Unknown modality 'sound'"),
        ({"split": "dev"}, "There is no split 'dev'"),
        ({"name": "../up"}, "is no name of an encoder"),
        ({"name": ""}, "is no name of an encoder"),
        ({"weights": "a b"}, "'a b' is no name of an encoder or of weights"),
    ):
        with pytest.raises(SettingsError, match=said):
            taken(cache, tmp_path / "a.npy", **values)
