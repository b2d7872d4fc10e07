"""A store, or an export, goes to a hub and comes back whole, or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmsa_cache.compose.hub import pull as pull_module
from mmsa_cache.compose.hub import push as push_module
from mmsa_cache.compose.hub.host import RemoteFile, RemoteStore, is_of_store, local_files
from mmsa_cache.compose.hub.hub_host import parse_repository
from mmsa_cache.compose.hub.hub_repository import hub_errors
from mmsa_cache.compose.hub.private import foreign_paths, shared_encoder
from mmsa_cache.data.stored_split import read_split, split_path, write_split
from mmsa_cache.errors import CacheError, SettingsError, StaleCacheError
from mmsa_cache.files.disk import Disk
from mmsa_cache.files.hashing import file_sha256
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.index import Index
from mmsa_cache.store.listing import list_features
from mmsa_cache.store.reader import verify_features
from tests.support.hub_client import Client, client
from tests.support.hub_server import TOKEN, Hub, Repository, git_sha1, hub_server, is_large
from tests.support.shards import make_shard, writer_of
from tests.support.small_work import QUICK, call, make_work

ADDRESS = "hf://me/posts"
NAME = "me/posts"


@pytest.fixture(scope="module", autouse=True)
def online() -> Iterator[None]:
    """Predictions of other tests leave this process offline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = make_work(tmp_path_factory.mktemp("hub"), text_model)
    settings = (folder / "mmsa.toml").read_text()
    (folder / "mmsa.toml").write_text(settings.replace('variants = "none"', "variants = 1"))
    call(folder, "extract", "--split", "all")
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with hub_server() as hub:
        yield hub


@pytest.fixture(scope="module")
def mmsa(work: Path, server: Hub) -> Iterator[Client]:
    """mmsa in the folder of the data, with a token."""
    with client(work, server.url, TOKEN) as process:
        yield process


@pytest.fixture(scope="module")
def pushed(server: Hub, mmsa: Client) -> dict[str, bytes]:
    """The files of a repository to which the store was pushed."""
    mmsa("cache", "push", ADDRESS)
    return server.repositories[NAME].files


@pytest.fixture
def hub(server: Hub, pushed: dict[str, bytes]) -> Hub:
    """A hub that has the repository."""
    server.repositories[NAME] = Repository(files=dict(pushed), commits=1)
    server.requests.clear()
    server.broken.clear()
    return server


def contents(root: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in local_files(root).items()}


def changed(hub: Hub, **files: bytes | None) -> None:
    """Another commit of somebody else."""
    repository = hub.repositories[NAME]
    repository.commits += 1
    for path, content in files.items():
        if content is None:
            del repository.files[path]
        else:
            repository.files[path] = content


def test_what_is_pushed_comes_back_and_is_trained_on_offline(
    work: Path, hub: Hub, mmsa: Client, tmp_path: Path
) -> None:
    files = hub.repositories[NAME].files
    assert {p for p in files if not is_of_store(p)} == {"README.md", ".gitattributes"}
    there = contents(work / "cache")
    assert files.keys() - {"README.md", ".gitattributes"} == there.keys()
    shards = {path for path in there if path.endswith(".h5")}
    assert len(shards) >= 2
    assert {path: files[path] for path in shards} == {path: there[path] for path in shards}

    pulled = mmsa("cache", "pull", ADDRESS, "--cache", str(tmp_path / "cache"), "--json").json[0]
    assert pulled["files"] == pulled["files_new"] == len(there)
    assert pulled["splits"] == {"train": 80, "test": 12}
    assert len(pulled["encoders"]) == 2
    found = contents(tmp_path / "cache")
    assert {path: found[path] for path in shards} == {path: there[path] for path in shards}
    others = {path.name for path in (tmp_path / "cache").iterdir()} - {".pull.lock"}
    assert others == {".pulled.json", "data", "features"}
    for split in ("train", "test"):
        about, samples = read_split(split_path(tmp_path / "cache", split))
        own_about, own_samples = read_split(split_path(work / "cache", split))
        assert samples == own_samples
        data = dict(own_about.told["data"])  # type: ignore[arg-type]
        del data["root"]
        assert about.told == {**own_about.told, "data": data}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        said = call(tmp_path, "train", "--name", "r", *QUICK, "--json")
        own = call(work, "train", "--name", "own", *QUICK, "--json")
    here, origin = (json.loads(text) for text in (said, own))
    for figures in ("outer", "inner", "training_rows"):
        assert here[figures] == origin[figures]


def test_nothing_of_the_machine_is_told(work: Path, hub: Hub) -> None:
    place = str(work.parent.parent).encode()  # of the data, and of the text model
    assert any(place in path.read_bytes() for path in local_files(work / "cache").values())
    told = [path for path, content in hub.repositories[NAME].files.items() if place in content]
    assert told == []
    text = next(p for p in hub.repositories[NAME].files if "text/" in p and "encoder.json" in p)
    assert json.loads(hub.repositories[NAME].files[text])["told"]["text"]["model"].startswith(
        "tiny-bert"
    )


def test_the_card_says_what_there_is(work: Path, hub: Hub) -> None:
    card = hub.repositories[NAME].files["README.md"].decode()
    labels = read_split(split_path(work / "cache", "train"))[1].labels
    counts = [int((labels == code).sum()) for code in range(3)]
    assert "Note: drawn by a test." in card
    assert "Note: mobilenetv2\\_035 (random weights)." in card
    assert (
        f"| train | 80 | positive {counts[0]}, neutral {counts[1]}, negative {counts[2]} |" in card
    )
    assert "| test | 12 | no label 12 |" in card
    assert "mmsa cache pull hf://me/posts --cache cache" in card
    assert "path: data/test.parquet" in card.split("---")[1]


def test_without_texts(work: Path, hub: Hub, mmsa: Client, tmp_path: Path) -> None:
    done = mmsa("cache", "push", "hf://me/mute", "--without-text", "--private", "--json").json[0]
    assert (done["texts"], hub.repositories["me/mute"].private) == (False, True)
    texts = [sample.text for sample in read_split(split_path(work / "cache", "train"))[1]]
    table = hub.repositories["me/mute"].files["data/train.parquet"]
    assert not any(text is not None and text.encode() in table for text in texts)
    assert "no texts, only their hashes" in hub.repositories["me/mute"].files["README.md"].decode()
    mmsa("cache", "pull", "hf://me/mute", "--cache", str(tmp_path / "cache"))
    assert not read_split(split_path(tmp_path / "cache", "train"))[1].has_texts
    call(tmp_path, "train", "--name", "r", *QUICK)
    assert (tmp_path / "runs/r/model.safetensors").is_file()


def test_a_repeated_pull_fetches_what_is_missing_alone(
    work: Path, hub: Hub, mmsa: Client, tmp_path: Path
) -> None:
    arguments = ("cache", "pull", ADDRESS, "--cache", str(tmp_path / "cache"), "--json")
    mmsa(*arguments)
    before = contents(tmp_path / "cache")
    hub.requests.clear()
    assert mmsa(*arguments).json[0]["files_new"] == 0
    assert hub.downloads() == []
    lost = next(path for path in before if path.endswith(".h5"))
    (tmp_path / "cache" / lost).unlink()
    assert mmsa(*arguments).json[0]["files_new"] == 1
    assert set(hub.downloads()) == {lost}
    assert contents(tmp_path / "cache") == before
    # the owner extracts with another encoder: only its files come
    shutil.copytree(work / "cache", tmp_path / "more")
    more = ("--cache", str(tmp_path / "more"))
    call(work, "extract", *more, "--image-model", "resnet10t", "--image-weights", "random")
    mmsa("cache", "push", ADDRESS, *more)
    hub.requests.clear()
    assert mmsa(*arguments).json[0]["files_new"] == 3
    assert all("resnet10t" in path for path in hub.downloads())
    # and takes it away again, and so does the next pull
    mmsa("cache", "push", ADDRESS)
    mmsa(*arguments)
    assert contents(tmp_path / "cache") == before


def test_an_interrupted_pull_leaves_nothing_in_place_and_resumes(
    hub: Hub, mmsa: Client, tmp_path: Path
) -> None:
    arguments = ("cache", "pull", ADDRESS, "--cache", str(tmp_path / "cache"))
    shards = [path for path in hub.repositories[NAME].files if path.endswith(".h5")]
    hub.broken = dict.fromkeys(shards, 100)
    said = mmsa(*arguments, code=4).stderr
    assert "the same command goes on where it stopped" in said
    assert local_files(tmp_path / "cache") == {}
    finished = contents(tmp_path / "cache/.pull").keys()
    assert finished.isdisjoint(shards)
    hub.broken = {}
    hub.requests.clear()
    mmsa(*arguments)
    assert set(shards) <= set(hub.downloads())
    assert finished.isdisjoint(hub.downloads())
    assert not (tmp_path / "cache/.pull").exists()
    assert all(not verify_features(f.folder) for f in list_features(tmp_path / "cache"))


def refused(hub: Hub, mmsa: Client, tmp_path: Path) -> str:
    """What a pull says that is refused; nothing may be left of it."""
    target = tmp_path / "refused"
    said = mmsa("cache", "pull", ADDRESS, "--cache", str(target), code=4).stderr
    assert not target.exists()
    return said


@pytest.mark.parametrize(
    "path",
    [
        "../../evil.h5",
        "/etc/evil",
        "features/text/../../../evil.h5",
        "features/text/.hidden-00000000/encoder.json",
        "features/sound/a-00000000/encoder.json",
        "features/text/a-00000000/0000000000000000.h5.exe",
        "features/text/a-00000000/.verified.json",
        "data/train.set-aside.json",
        "data/dev.parquet",
        "model.pkl",
        "data/train.parquet\n",
    ],
)
def test_files_of_other_names_are_refused_before_anything_is_fetched(
    hub: Hub, mmsa: Client, tmp_path: Path, path: str
) -> None:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": 9, "oid": "0" * 40}
    hub.repositories[NAME].listed = [entry]
    said = refused(hub, mmsa, tmp_path)
    assert f"{path!r} is no file of a store" in said
    assert hub.downloads() == []


def test_sizes_and_hashes_that_lie_are_refused(hub: Hub, mmsa: Client, tmp_path: Path) -> None:
    files = hub.repositories[NAME].files
    shard = next(path for path in files if path.endswith(".h5"))
    huge = {"type": "file", "path": "data/train.parquet", "size": 1 << 50, "oid": "0" * 40}
    hub.repositories[NAME].listed = [huge]
    assert f"data/train.parquet has {1 << 50} bytes" in refused(hub, mmsa, tmp_path)
    kind, modality, folder, file = shard.split("/")
    twin = f"{kind}/{modality}/{folder[:-9].upper()}{folder[-9:]}/{file}"
    hub.repositories[NAME].listed = [{"type": "file", "path": twin, "size": 9, "oid": "0" * 40}]
    assert "differ in upper and lower case only" in refused(hub, mmsa, tmp_path)
    hub.repositories[NAME].listed = []
    hub.repositories[NAME].claims = {shard: "0" * 64}
    assert f"{shard}: it has another hash than the hub says" in refused(hub, mmsa, tmp_path)
    hub.repositories[NAME].claims = {}


def test_stores_that_do_not_hold_together_are_refused(
    work: Path, hub: Hub, mmsa: Client, tmp_path: Path
) -> None:
    files = dict(hub.repositories[NAME].files)
    shard = next(path for path in files if path.endswith(".h5"))
    folder = shard.rpartition("/")[0]

    def said(**other: bytes | None) -> str:
        hub.repositories[NAME].files = dict(files)
        changed(hub, **other)
        return refused(hub, mmsa, tmp_path)

    flipped = bytearray(files[shard])
    flipped[-1] ^= 1
    assert "was changed after it was sealed" in said(**{shard: bytes(flipped)})
    assert "it is missing" in said(**{shard: None})
    odd = f"{folder}/{'0' * 16}.h5"
    assert f"{odd}: its index does not name it" in said(**{odd: b"x"})
    assert "encoder.json was changed after it was written" in said(
        **{f"{folder}/encoder.json": files[f"{folder}/encoder.json"].replace(b"random", b"rendom")}
    )
    assert "not a line of an index" in said(**{f"{folder}/index.jsonl": b"{}\n"})
    assert "train.parquet" in said(**{"data/train.parquet": b"PAR1 no PAR1"})
    assert "data/train.parquet" in said(**{"data/train.parquet": b""})
    assert "test.parquet holds the split 'train'" in said(
        **{"data/test.parquet": files["data/train.parquet"]}
    )
    every = {path: None for path in files if path.startswith("features/")}
    assert "it has no split, or no features" in said(**every)
    # a record that leads to files of this machine
    about, samples = read_split(split_path(work / "cache", "train"))
    told = {**about.told, "data": {"root": "/etc"}}
    write_split(tmp_path / "train.parquet", about.model_copy(update={"told": told}), samples)
    content = (tmp_path / "train.parquet").read_bytes()
    assert "the data folder '/etc'" in said(**{"data/train.parquet": content})
    record = next(p for p in files if p.startswith("features/text/") and "encoder.json" in p)
    content = (work / "cache" / record).read_bytes()
    assert "it names text.model '/" in said(**{record: content})


def test_a_folder_with_another_store_is_left_as_it_is(
    hub: Hub, mmsa: Client, tmp_path: Path
) -> None:
    writer = writer_of(tmp_path / "cache")
    with writer.claim(lambda: None):
        writer.publish(make_shard(0, 3, 1))
    before = contents(tmp_path / "cache")
    said = mmsa("cache", "pull", ADDRESS, "--cache", str(tmp_path / "cache"), code=4).stderr
    assert "holds another store than the repository, or more than it" in said
    assert "is not of this repository" in said
    assert contents(tmp_path / "cache") == before
    assert hub.downloads() == []


def test_what_the_hub_refuses_is_told_with_the_next_step(
    work: Path, hub: Hub, mmsa: Client, tmp_path: Path
) -> None:
    target = ("--cache", str(tmp_path / "c"))
    said = mmsa("cache", "pull", "hf://me/nothing", *target, code=4).stderr
    assert "The hub has no data set me/nothing, or none that your token may see." in said
    assert "Run hf auth login" in said
    assert not (tmp_path / "c").exists()
    said = mmsa("cache", "push", "hf://others/posts", code=4).stderr
    assert "Your token may not use the data set others/posts." in said
    said = mmsa("cache", "push", ADDRESS, "--private", code=2).stderr
    assert "me/posts is public; nothing was pushed" in said
    assert hub.repositories[NAME].commits == 1
    assert "There is no cache in" in mmsa("cache", "push", ADDRESS, *target, code=4).stderr
    hub.repositories["me/models"] = Repository(files={"weights.bin": b"precious"})
    said = mmsa("cache", "push", "hf://me/models", code=4).stderr
    assert "'weights.bin' is no file of a store" in said
    assert hub.repositories["me/models"].files == {"weights.bin": b"precious"}
    assert list((work / "cache").glob(".push-*")) == []
    said = mmsa("cache", "push", "hf://me/new", code=4, HF_TOKEN="").stderr
    assert "The hub knows no valid token of yours." in said
    assert "Run hf auth login" in said
    mmsa("cache", "pull", ADDRESS, *target, HF_TOKEN="")  # a public one needs none
    with client(work, "http://127.0.0.1:9", TOKEN) as alone:
        said = alone("cache", "pull", ADDRESS, *target, code=4).stderr
        assert "Check the network and HF_ENDPOINT" in said


def test_a_pull_that_dies_while_it_puts_files_in_place_resumes(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = local_files(work / "cache")
    remote = RemoteStore({name: remote_file(path) for name, path in there.items()})
    hashes = {name: file_sha256(path) for name, path in there.items()}
    rename = Disk.rename
    for step in range(len(there)):
        root = tmp_path / str(step)
        shutil.copytree(work / "cache", root / ".pull")
        left = step

        def dying(disk: Disk, path: Path, target: Path) -> None:
            nonlocal left
            if ".pull/" in str(path):
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt
            rename(disk, path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Disk, "rename", dying)
            with pytest.raises(KeyboardInterrupt):
                pull_module._put_in_place(root, NAME, hashes, {}, set(hashes))
        found = local_files(root)
        assert len(found) == step
        assert [f.problem for f in list_features(root) if f.rows and f.problem] == []
        known = pull_module._read_note(root, NAME)
        assert pull_module._matching_files(root, found, remote, known, "the hub") == found.keys()
        # also where the repository was changed meanwhile
        assert pull_module._matching_files(root, found, RemoteStore({}), known, "the hub") == set()
        with pytest.raises(CacheError, match="holds another store") as caught:
            pull_module._matching_files(root, there, RemoteStore({}), {}, "the hub")
        assert len(caught.value.problems) == len(there)


def remote_file(path: Path) -> RemoteFile:
    content = path.read_bytes()
    large = hashlib.sha256(content).hexdigest() if is_large(path.name) else None
    return RemoteFile(len(content), large, git_sha1(content))


def test_what_the_client_raises_is_told() -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    with pytest.raises(CacheError, match="HF_HUB_OFFLINE is set"), hub_errors(NAME):
        raise LocalEntryNotFoundError("nothing here") from OfflineModeIsEnabled("offline")
    with pytest.raises(OSError, match="No space left") as full, hub_errors(NAME):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not isinstance(full.value, CacheError)
    with pytest.raises(StaleCacheError, match="old"), hub_errors(NAME):
        raise StaleCacheError("old")


def test_addresses() -> None:
    assert parse_repository("hf://me/posts") == parse_repository("hf://datasets/me/posts") == NAME
    for wrong in ("me/posts", "hf://me", "hf://me/../x", "https://hf.co/me/posts", "hf://a/b/c/d"):
        with pytest.raises(SettingsError, match=r"hf://USER/REPO"):
            parse_repository(wrong)


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        ("bert-base-uncased", "bert-base-uncased"),
        ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32"),
        ("hf-hub:timm/vit_tiny.augreg", "hf-hub:timm/vit_tiny.augreg"),
        ("/home/me/models/own", "own"),
        ("./own/w.safetensors", "w.safetensors"),
        ("../up", "up"),
        ("~/own", "own"),
        ("C:\\models\\own", "own"),
        ("/", "model"),
    ],
)
def test_names_stay_and_places_go(model: str, kept: str) -> None:
    fields = {"modality": "text", "encoder": "own", "weights": "x"}
    encoder = StoredEncoder.model_validate({"fields": fields, "told": {"text": {"model": model}}})
    shared = shared_encoder(encoder)
    assert shared.told == {"text": {"model": kept}}
    assert foreign_paths(shared.told) == []
    assert (foreign_paths(encoder.told) == []) == (model == kept)


def test_a_push_takes_what_was_sealed_when_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_of(tmp_path)
    with writer.claim(lambda: None):
        for part in range(12):
            writer.publish(make_shard(part * 3, 3, part))
        real, calls = push_module.link_or_copy, []

        def link(old: Path, new: Path) -> None:
            if len(calls) == 4:  # another process merges, and adds rows, meanwhile
                writer.finish()
                writer.publish(make_shard(100, 2, 99))
            calls.append(old)
            real(old, new)

        monkeypatch.setattr(push_module, "link_or_copy", link)
        (tmp_path / "place").mkdir()
        shared = push_module._link_features(tmp_path, tmp_path / "place")
    folder = next((tmp_path / "place").glob("features/*/*"))
    index = Index.read(folder)
    assert index.rows == shared[0].rows == 38
    assert {path.name for path in folder.glob("*.h5")} == {e.file for e in index.entries.values()}
    assert verify_features(folder) == []


MODEL, MODEL_KEY = "hf://me/model", "models/me/model"
POST = ("--text", "good day sun", "--image", "posts/pairs/85.jpg", "--json")


@pytest.fixture(scope="module")
def exported(work: Path, server: Hub, mmsa: Client) -> dict[str, bytes]:
    """The files of a repository to which a run was exported."""
    mmsa("train", "--name", "run", *QUICK)
    done = mmsa("export", "run", "--push", "me/model", "--license", "mit", "--language", "en")
    assert "mmsa predict --run hf://me/model --online --text" in done.stderr
    return server.repositories[MODEL_KEY].files


@pytest.fixture
def model_hub(server: Hub, exported: dict[str, bytes]) -> Hub:
    """A hub that has the export."""
    server.repositories[MODEL_KEY] = Repository(files=dict(exported), commits=1)
    server.requests.clear()
    return server


def test_an_export_is_pushed_and_predicts_elsewhere(
    work: Path, model_hub: Hub, mmsa: Client
) -> None:
    files = model_hub.repositories[MODEL_KEY].files
    want = mmsa("predict", "--run", "run", *POST).json
    command = ("predict", "--run", MODEL, *POST)
    said = mmsa(*command, code=4).stderr
    assert f"The model {MODEL} is not on this machine." in said
    assert "mmsa predict --run hf://me/model --online" in said
    assert model_hub.requests == []
    assert mmsa(*command, "--online").json == want
    assert {*model_hub.downloads()} == files.keys() - {".gitattributes"}
    model_hub.requests.clear()
    assert mmsa(*command).json == want
    assert model_hub.requests == []
    (copy,) = (work / "hf-home/assets/mmsa/models").iterdir()
    assert not any(path.is_symlink() for path in copy.rglob("*"))
    # It is looked at again, and is as the hub has it; a byte of the copy changes: it is replaced.
    mmsa(*command, "--online")
    assert model_hub.downloads() == []
    (copy / "metrics.json").unlink()
    (copy / "metrics.json").write_text("{}")
    mmsa(*command, "--online")
    assert (copy / "metrics.json").read_bytes() == files["metrics.json"]


def test_an_export_tells_nothing_of_the_machine_and_no_post(
    work: Path, exported: dict[str, bytes]
) -> None:
    everything = b"".join(exported.values())
    for place in (work, Path.home(), Path.cwd(), Path(tempfile.gettempdir())):
        assert str(place).encode() not in everything
    texts = [sample.text for sample in read_split(split_path(work / "cache", "train"))[1]]
    assert not any(text.encode() in everything for text in texts if text)
    assert {path.rpartition(".")[2] for path in exported} <= {
        *("json", "md", "safetensors", "gitattributes")
    }


def test_the_hub_takes_the_card(
    work: Path, server: Hub, exported: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard(exported["README.md"].decode())
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    card.validate()
    found, figures = card.data, RunFolder(work / "runs/run").figures
    assert (found.license, found.language, found.library_name) == ("mit", ["en"], "mmsa")
    assert found.pipeline_tag == "text-classification"
    accuracy, f1, log_loss = found.eval_results
    assert accuracy.metric_value == figures.outer.accuracy
    assert (f1.metric_type, f1.metric_args["average"]) == ("f1", "macro")
    assert f1.metric_value == figures.outer.macro_f1
    assert log_loss.metric_value == -figures.outer.neg_log_loss
    for result in found.eval_results:
        low, high = result.metric_args["ci95"]
        assert low < result.metric_value < high
        assert (result.dataset_name, result.dataset_split) == ("posts", "grouped")
        assert result.verified is False
    assert 'load_model("hf://me/model", online=True)' in card.text


def test_an_export_replaces_an_older_one_and_nothing_else(
    work: Path, model_hub: Hub, mmsa: Client
) -> None:
    repository = model_hub.repositories[MODEL_KEY]
    repository.files |= {"encoders/text/old/config.json": b"{}", "LICENSE": b"mine"}
    folder = work / "exports/mine"
    done = mmsa("export", "run", "--push", MODEL, "--to", str(folder), "--json").json
    assert (done["repository"], done["revision"]) == ("me/model", repository.sha)
    there = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}
    assert repository.files == {p: b for p, b in there.items() if (folder / p).is_file()} | {
        "LICENSE": b"mine",
        ".gitattributes": repository.files[".gitattributes"],
    }
    done = mmsa("export", "run", "--push", "me/own", "--private", "--json").json
    assert (done["directory"], model_hub.repositories["models/me/own"].private) == (None, True)
    for content in (b"{}", b"[", b'{"model_type": "bert"}'):
        other = Repository(files={"config.json": content, "weights.bin": b"precious"})
        model_hub.repositories["models/me/other"] = other
        said = mmsa("export", "run", "--push", "me/other", code=2).stderr
        assert "me/other holds what mmsa export did not write: nothing was pushed." in said
        assert other.commits == 0


def test_pushes_that_cannot_be(work: Path, model_hub: Hub, mmsa: Client) -> None:
    said = mmsa("export", "run", code=2).stderr
    assert "Give --to FOLDER, or --push USER/REPO." in said
    said = mmsa("export", "run", "--push", "https://hf.co/me/model", code=2).stderr
    assert "Write hf://USER/REPO" in said
    said = mmsa("export", "run", "--push", "me/model", "--private", code=2).stderr
    assert "The model me/model is public; nothing was pushed." in said
    said = mmsa("export", "run", "--push", "others/model", code=4).stderr
    assert "Your token may not use the model others/model." in said
    said = mmsa("export", "run", "--push", "me/model", "--license", "MIT-ish", code=4).stderr
    assert "The hub takes no card with this metadata" in said
    assert "Give another --license" in said
    assert model_hub.repositories[MODEL_KEY].commits == 1


def test_models_that_are_none_are_refused(work: Path, model_hub: Hub, mmsa: Client) -> None:
    repository = model_hub.repositories[MODEL_KEY]
    files = dict(repository.files)
    copy = work / "hf-home/assets/mmsa/models/me--bad"

    def said(**other: bytes | None) -> str:
        changed = {path: content for path, content in (files | other).items() if content}
        before = model_hub.repositories.get("models/me/bad", Repository())
        bad = Repository(files=changed, commits=before.commits + 1)
        model_hub.repositories["models/me/bad"] = bad
        return mmsa("predict", "--run", "hf://me/bad", "--online", *POST, code=4).stderr

    assert "it has no config.json" in said(**{"config.json": None})
    assert "holds is no export of mmsa" in said(**{"config.json": b'{"model_type": "bert"}'})
    assert not copy.exists()
    assert "cannot be loaded" in said(**{"model.safetensors": b"\x08" + bytes(15)})
    nothing = mmsa("predict", "--run", "hf://me/nothing", "--online", *POST, code=4).stderr
    assert "The hub has no model me/nothing" in nothing
    evil = ["../evil.safetensors", "encoders/text/../../evil.json", "run.py", ".git/config"]
    bad = model_hub.repositories["models/me/bad"] = Repository(files=dict(files), commits=9)
    bad.listed = [{"type": "file", "path": p, "size": 9, "oid": "0" * 40} for p in evil]
    mmsa("predict", "--run", "hf://me/bad", "--online", *POST)
    assert {p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file()} == (
        files.keys() - {".gitattributes"}
    )
    bad.claims, bad.commits = {"model.safetensors": "0" * 64}, 10
    said_of_it = mmsa("predict", "--run", "hf://me/bad", "--online", *POST, code=4).stderr
    assert "model.safetensors: it has another hash than the hub says" in said_of_it
