"""Names, fields and differences of encoders, as people and other programs see them."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from mmsa_cache.errors import DamagedCacheError
from mmsa_cache.files.hashing import digest
from mmsa_cache.store.encoder import ENCODER as RECORD_FILE
from mmsa_cache.store.encoder import StoredEncoder, read_encoder
from mmsa_cache.store.fingerprint import cache_name, differences
from mmsa_cache.store.identity import EncoderIdentity, Origin
from mmsa_cache.store.index import IndexChange, ShardEntry
from tests.support.faulty import Counting
from tests.support.shards import ENCODER, FIELDS

ENTRY = ShardEntry(sha256="ab" * 32, rows=1, bytes=1)
FROZEN: list[tuple[BaseModel, str]] = [
    (ENCODER, "names"),
    (ENCODER.identity, "name"),
    (Origin(text="t", image="i", classes=("a",)), "data"),
    (ENTRY, "rows"),
    (IndexChange(add=ENTRY), "drop"),
]


@pytest.mark.parametrize(("record", "field"), FROZEN, ids=lambda value: type(value).__name__)
def test_what_identifies_features_cannot_be_changed(record: BaseModel, field: str) -> None:
    """A fingerprint that was made of it would be of something else."""
    with pytest.raises(ValidationError, match="frozen"):
        setattr(record, field, getattr(record, field))


@pytest.mark.parametrize(
    ("weights", "imported", "label"),
    [
        ("random:47", None, "tiny (random weights)"),
        ("0123", True, "tiny"),
        ("not random:47", "true", "tiny"),
        ("randomised", False, "tiny"),
        (None, 1, "tiny"),
    ],
)
def test_an_encoder_is_called_what_it_is(weights: str | None, imported: Any, label: str) -> None:
    own = {"weights": weights, "imported": imported}
    fields = FIELDS | {key: value for key, value in own.items() if value is not None}
    found = EncoderIdentity.of_fields(fields)
    assert (found.modality, found.name, found.label) == ("text", "tiny", label)
    assert found.imported == (imported is True)
    assert found.random_weights == label.endswith("weights)")


def test_features_are_found_where_a_store_has_them() -> None:
    """Of before, too: another way to hash would find none of them."""
    fields = b'{"encoder":"tiny","modality":"text","size":8}'
    assert ENCODER.fingerprint == hashlib.sha256(fields).hexdigest()
    assert ENCODER.subfolder == f"features/text/tiny-{ENCODER.fingerprint[:8]}"
    assert ENCODER.folder(Path("store")) == Path("store", ENCODER.subfolder)


RECORD = """{
 "fields": {
  "encoder": "tiny",
  "modality": "text",
  "size": 8
 },
 "names": [
  "default"
 ],
 "schema": 2,
 "sha256": "?",
 "told": {
  "text": {
   "model": "tiny"
  }
 },
 "versions": {
  "torch": "1"
 }
}
"""


def test_a_record_is_written_as_before_and_read_where_it_lies(tmp_path: Path) -> None:
    """Its hash is of all but itself; a link to a record elsewhere is not followed."""
    encoder = StoredEncoder.of(
        ENCODER.identity, told={"text": {"model": "tiny"}}, versions={"torch": "1"}
    )
    folder = encoder.folder(tmp_path)
    folder.mkdir(parents=True)
    disk = Counting()
    encoder.write(folder, disk)
    assert disk.steps, "written past the disk that was given"
    content = {key: value for key, value in json.loads(RECORD).items() if key != "sha256"}
    assert (folder / RECORD_FILE).read_text() == RECORD.replace("?", digest(content))
    assert read_encoder(folder) == encoder
    for wrong in ({"names": "x"}, {"more": 1}, {"fields": {}}):
        other = content | wrong
        (folder / RECORD_FILE).write_text(json.dumps(other | {"sha256": digest(other)}))
        with pytest.raises(DamagedCacheError, match="is not the record of an encoder") as raised:
            read_encoder(folder)
        assert raised.value.hint == f"Delete the folder {folder} and run mmsa extract again."
    encoder.write(folder)
    (folder / RECORD_FILE).rename(tmp_path / "elsewhere")
    (folder / RECORD_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedCacheError, match="cannot be read"):
        read_encoder(folder)


def test_an_index_is_written_as_before() -> None:
    """Shards are named by the first sixteen digits of their content's hash."""
    sha256 = hashlib.sha256(b"a shard").hexdigest()
    entry = ShardEntry(sha256=sha256, rows=3, bytes=700)
    assert (entry.name, entry.file) == (sha256[:16], f"{sha256[:16]}.h5")
    content = f'{{"add":{{"sha256":"{sha256}","rows":3,"bytes":700}},"drop":["{"ab" * 8}"]}}'
    line = f'{{"change": {content}, "crc32": {zlib.crc32(content.encode())}}}\n'
    assert IndexChange(add=entry, drop=("ab" * 8,)).line().decode() == line


def test_fields_are_equal_whichever_way_they_came() -> None:
    """Tuples come back from a file as lists."""
    one, two = (EncoderIdentity.of_fields(FIELDS | {"mean": mean}) for mean in ((1, 2), [1, 2]))  # type: ignore[dict-item]
    assert one == two
    assert StoredEncoder.of(one).fingerprint == StoredEncoder.of(two).fingerprint


def test_precision_device_and_decoder_may_differ_from_those_of_training() -> None:
    numbers = ("compute", "device", "decoder_versions")
    trained_on, here = (
        EncoderIdentity.of_fields(FIELDS | dict.fromkeys(numbers, of) | {"size": size})
        for of, size in (("one", 8), ("another", 9))
    )
    assert here.changes_since(trained_on) == ["size: the model was trained with 8, here is 9"]


def test_an_origin_is_written_as_before_where_no_val_judges() -> None:
    """Studies and runs of before are gone on with: their digests have no such key."""
    origin = Origin(text="t", image={"a": "i"}, classes=("x", "y"))
    plain = {"text": "t", "image": {"a": "i"}, "classes": ["x", "y"], "data": ""}
    assert origin.model_dump(mode="json") == plain
    judged = origin.model_copy(update={"val": "ab", "data": "cd"})
    assert judged.model_dump(mode="json") == {**plain, "val": "ab", "data": "cd"}
    assert [Origin.model_validate(of.model_dump()) for of in (origin, judged)] == [origin, judged]


def test_differences_name_what_is_there_and_what_is_wanted() -> None:
    long = "0123456789abcdef" * 4
    wanted = {"b": 1, "weights": long, "same": [1], "gone": None, "size": "0" * 39}
    have = {"weights": "1" + long[1:], "same": [1], "a": {"x": True}, "gone": "x", "b": 1.5}
    assert differences(wanted, have) == [
        'a: the store has {"x": true}, expected (absent)',
        "b: the store has 1.5, expected 1",
        "gone: the store has x, expected null",
        f"size: the store has (absent), expected {'0' * 39}",
        "weights: the store has 1123456789ab…, expected 0123456789ab…",
    ]
    assert differences({"a": 1}, {"a": 2}, found_has="it has", expected_is="I want") == [
        "a: it has 2, I want 1"
    ]


@pytest.mark.parametrize(
    ("encoder", "slug"),
    [
        ("org/model-v1.5_x", "model-v1.5_x"),
        ("a: b  ü/ç", "encoder"),
        ("C:\\x y", "C-x-y"),
        ("-.x.-", "x"),
        ("timm/XceptionX", "XceptionX"),
        ("a/..", "encoder"),
    ],
)
def test_names_of_folders_are_plain(encoder: str, slug: str) -> None:
    name, _, digits = cache_name(encoder, {"a": 1}).rpartition("-")
    assert name == slug
    assert digits == "015abd7f"  # of sha256 of {"a":1}
