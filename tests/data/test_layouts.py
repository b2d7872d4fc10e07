"""Layouts of a data folder: raw MVSA, tables, unlabelled pairs."""

from __future__ import annotations

import csv
import io
import itertools
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.files import FOLLOW_HINT
from mmsa_cache.data.layouts.layout import find_layout
from mmsa_cache.data.layouts.listing import LABELS
from mmsa_cache.data.layouts.mvsa import majority, merge
from mmsa_cache.data.layouts.rows import list_rows, read_labels
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.split_summary import SplitSummary
from mmsa_cache.errors import DataError
from tests.support.reading import intake, read_split

KINDS = "JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIF"
SINGLE = "ID\ttext,image\n"
MULTIPLE = "ID\ttext,image\ttext,image\ttext,image\n"


def picture(kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10), (90, 20, 200)).save(buffer, kind)
    return buffer.getvalue()


def make_pairs(folder: Path, *guids: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for guid in guids:
        (folder / f"{guid}.txt").write_text(f"post {guid}")
        (folder / f"{guid}.jpg").write_bytes(picture())
    return folder


def make_table(root: Path, name: str, content: str | bytes, *images: str) -> Path:
    root.mkdir(exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode()
    (root / name).write_bytes(data)
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(picture())
    return root


def seen(samples: list[Sample]) -> list[tuple[str, int | None, str]]:
    return [(s.guid, s.label, s.text) for s in samples]


def problems_of(root: Path, split: str = "train") -> list[str]:
    with pytest.raises(DataError) as caught:
        read_split(root, split)
    assert caught.value.exit_code == 3
    assert caught.value.message.startswith(f"{len(caught.value.problems)} problem(s) in ")
    return caught.value.problems


# The rule of MVSA, written out: (text, image) → label.
MERGED = {
    ("positive", "positive"): "positive",
    ("positive", "neutral"): "positive",
    ("positive", "negative"): None,
    ("neutral", "positive"): "positive",
    ("neutral", "neutral"): "neutral",
    ("neutral", "negative"): "negative",
    ("negative", "positive"): None,
    ("negative", "neutral"): "negative",
    ("negative", "negative"): "negative",
}


def test_merge_rule() -> None:
    assert len(MERGED) == 9
    assert {pair: merge(*pair) for pair in itertools.product(LABELS, LABELS)} == MERGED


def test_majority_of_all_triples() -> None:
    without = 0
    for votes in itertools.product(LABELS, repeat=3):
        ranked = sorted(votes)
        expected = ranked[1] if ranked[1] in (ranked[0], ranked[2]) else None
        assert majority(votes) == expected
        without += expected is None
    assert without == 6
    assert [majority([label]) for label in LABELS] == list(LABELS)


@pytest.mark.parametrize("folder", [".", "data", "pairs"])
def test_mvsa_single(tmp_path: Path, folder: str) -> None:
    guids = [str(n) for n in range(9, 0, -1)]
    make_pairs(tmp_path / folder, *guids)
    rows = "".join(
        f"{guid}\t{text},{image}\r\n" for guid, (text, image) in zip(guids, MERGED, strict=True)
    )
    (tmp_path / "labelResultAll.txt").write_bytes(("\ufeff" + SINGLE + rows).encode())
    samples, report = intake(tmp_path, "train")
    assert seen(samples) == [
        (guid, LABELS.index(label), f"post {guid}")
        for guid, label in zip(guids, MERGED.values(), strict=True)
        if label is not None
    ]
    kept = {"positive": 3, "neutral": 1, "negative": 3}
    assert report == SplitSummary("MVSA-Single", "train", kept, 4, 2)
    assert read_split(tmp_path, "train") == samples
    assert report.summary() == (
        "Data: layout MVSA-Single, split train: 7 rows kept (3 positive, 1 neutral, 3 negative), "
        "4 of them merged from a neutral and a polar label; 2 dropped (contradicting labels)."
    )


def test_mvsa_multiple_over_all_triples(tmp_path: Path) -> None:
    triples = list(itertools.product(LABELS, repeat=3))
    cases = list(itertools.product(triples, repeat=2))
    expected, merged = [], 0
    lines = [MULTIPLE]
    for number, (texts, images) in enumerate(cases):
        lines.append(
            "\t".join([f"g{number}", *(f"{t},{i}" for t, i in zip(texts, images, strict=True))])
            + "\n"
        )
        both = [
            next((label for label in LABELS if votes.count(label) >= 2), None)
            for votes in (texts, images)
        ]
        label = None if None in both else MERGED[both[0], both[1]]  # type: ignore[index]
        if label is not None:
            expected.append((f"g{number}", LABELS.index(label)))
            merged += both[0] != both[1]
    (tmp_path / "labelResultAll.txt").write_text("".join(lines))
    make_pairs(tmp_path / "data", expected[0][0])  # listing needs one pair to find the folder
    listing = list_rows(DataSettings(root=tmp_path), "train", LABELS)
    assert [(row.guid, row.label) for row in listing.rows()] == expected
    assert (listing.layout, listing.merged, listing.dropped) == (
        "MVSA-Multiple",
        merged,
        len(cases) - len(expected),
    )
    assert listing.folder == tmp_path / "data"


def test_mvsa_multiple_reads(tmp_path: Path) -> None:
    make_pairs(tmp_path / "data", "1", "2", "3")
    (tmp_path / "labelResultAll.txt").write_text(
        MULTIPLE
        + "1\tneutral,positive\tneutral,positive\tnegative,negative\n"
        + "2\tneutral,positive\tpositive,positive\tnegative,positive\n"
        + "3\tnegative,negative\tnegative,negative\tpositive,neutral\n"
    )
    samples, report = intake(tmp_path, "train")
    assert seen(samples) == [("1", 0, "post 1"), ("3", 2, "post 3")]
    assert report == SplitSummary("MVSA-Multiple", "train", {"positive": 1, "negative": 1}, 1, 1)


def test_mvsa_mistakes_and_pairs_in_one_pass(tmp_path: Path) -> None:
    make_pairs(tmp_path / "data", "1", "2")
    (tmp_path / "data" / "2.jpg").write_bytes(b"<html>")
    (tmp_path / "labelResultAll.txt").write_text(
        SINGLE
        + "1\tpositive,positive\n2\tneutral,neutral\n\n"
        + "1\tpositive,negative\n3\tpositive\n4\tpositive,neutrl\n5\tneutral,null\n"
        + "6\tneutral,neutral\tneutral,neutral\n../7\tneutral,neutral\n8 neutral,neutral\n"
    )
    valid = "valid: positive, neutral, negative"
    assert problems_of(tmp_path) == [
        "labelResultAll.txt:5: guid 1 is already in line 2",
        "labelResultAll.txt: 3 rows: expected an ID and 2 labels (line 6: received "
        "'3\\tpositive'; line 9: received '6\\tneutral,neutral\\tneutral,neutral'; line 11: "
        "received '8 neutral,neutral')",
        f"labelResultAll.txt:7: unknown label 'neutrl' (near: neutral); {valid} (or set [data] "
        "classes)",
        f"labelResultAll.txt:8: unknown label 'null'; {valid} (or set [data] classes)",
        "labelResultAll.txt:10: guid '../7' is not a plain file name",
        f"2.jpg: content is none of {KINDS} (begins with b'<html>')",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ID\ttext,image\ttext,image\n", "labelResultAll.txt:1: expected the header 'ID<TAB>text"),
        ("1\tpositive,positive\n", r"three \(MVSA-Multiple\), received '1\\tpositive,positive'"),
        (SINGLE, "labelResultAll.txt: no rows after the header"),
        (SINGLE + "1\tpositive,negative\n", "labelResultAll.txt: no row is left"),
        ("", "labelResultAll.txt: empty file"),
    ],
)
def test_mvsa_without_rows(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "labelResultAll.txt").write_text(content)
    make_pairs(tmp_path, "1")
    with pytest.raises(DataError, match=message):
        read_split(tmp_path, "train")


def test_mvsa_has_no_test_split(tmp_path: Path) -> None:
    (tmp_path / "labelResultAll.txt").write_text(SINGLE + "1\tneutral,neutral\n")
    make_pairs(tmp_path / "data", "1")
    assert find_layout(DataSettings(root=tmp_path)).splits == ("train",)
    with pytest.raises(DataError, match=r"labelResultAll.txt is raw MVSA, which has no test split"):
        read_split(tmp_path, "test")


def test_mvsa_label_file_stays_inside(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.txt").write_text(SINGLE + "1\tneutral,neutral\n")
    root = make_pairs(tmp_path / "root", "1")
    (root / "labelResultAll.txt").symlink_to(tmp_path / "elsewhere.txt")
    with pytest.raises(DataError, match=r"labelResultAll.txt: leads out of the data folder"):
        read_split(root, "train")


CSV = (
    "guid,text,image,label\r\n"
    'b2,"first line\r\nsecond, ""quoted"" line",img/1.jpg,negative\r\n'
    "\r\n"
    "a1, padded ,img/zwei é.jpg,positive\r\n"
)
TSV = 'image\ttag\ttext\nimg/1.jpg\tneutral\t"a\tb"\n'
JSONL = (
    '{"guid": 7, "text": "line one\\nline\u2028two", "image": "img/1.jpg", "tag": "neutral"}\r\n'
    "\r\n"
    '{"image": "img/x.y.png", "text": "\\u00e9", "guid": null, "label": "positive"}\n'
)


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("name", "content", "images", "expected"),
    [
        (
            "train.csv",
            CSV,
            ("img/1.jpg", "img/zwei é.jpg"),
            [("b2", 2, 'first line\r\nsecond, "quoted" line'), ("a1", 0, "padded")],
        ),
        ("train.tsv", TSV, ("img/1.jpg",), [("1", 1, "a\tb")]),
        (
            "train.jsonl",
            JSONL,
            ("img/1.jpg", "img/x.y.png"),
            [("7", 1, "line one\nline\u2028two"), ("x.y", 0, "é")],
        ),
    ],
)
def test_tables(
    tmp_path: Path,
    name: str,
    content: str,
    images: tuple[str, ...],
    expected: list[tuple[str, int, str]],
    bom: str,
) -> None:
    make_table(tmp_path, name, bom + content, *images)
    samples, report = intake(tmp_path, "train", classes=LABELS)
    assert seen(samples) == expected
    assert [s.image_path for s in samples] == [tmp_path.resolve() / image for image in images]
    labels = [LABELS[label] for _, label, _ in expected]
    kept = {name: labels.count(name) for name in LABELS if name in labels}
    assert report == SplitSummary("tables", "train", kept, 0, 0)


def test_a_table_gives_the_same_sample_as_the_reports_layout(tmp_path: Path) -> None:
    text = "\ufeff 好 post, with a comma\n"
    pairs = make_pairs(tmp_path / "report" / "pairs", "p")
    (pairs / "p.txt").write_bytes(text.encode("gb18030"))
    (tmp_path / "report" / "train.txt").write_text("guid,tag\np,neutral\n")
    table = f'guid,text,image,label\np,"{text}",p.jpg,neutral\n'.encode("gb18030")
    make_table(tmp_path / "table", "train.csv", table, "p.jpg")
    one, two = (
        read_split(tmp_path / name, "train", encoding="gb18030", max_chars=6)[0]
        for name in ("report", "table")
    )
    assert one.text == two.text == "好 post"[:6]
    assert (one.label, one.text_sha256, one.image_sha256) == (
        two.label,
        two.text_sha256,
        two.image_sha256,
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test.csv", "text,image\nt,1.jpg\nt,2.jpg\n"),
        ("test.csv", "text,image,label\nt,1.jpg,\nt,2.jpg,null\n"),
        ("test.tsv", "tag\timage\ttext\n\t1.jpg\tt\nnull\t2.jpg\tt\n"),
        (
            "test.jsonl",
            '{"text": "t", "image": "1.jpg", "tag": null}\n{"text": "t", "image": "2.jpg"}',
        ),
    ],
)
def test_unlabelled_tables(tmp_path: Path, name: str, content: str) -> None:
    make_table(tmp_path, name, content, "1.jpg", "2.jpg")
    assert seen(read_split(tmp_path, "test")) == [("1", None, "t"), ("2", None, "t")]
    with pytest.raises(DataError, match=r"holds no table train.csv or train.tsv or train.jsonl"):
        read_split(tmp_path, "train")


def test_csv_mistakes_in_one_pass(tmp_path: Path) -> None:
    root = make_table(
        tmp_path,
        "train.csv",
        "guid,text,image,label\n"
        '1,"two\nlines",1.jpg,positive\n'  # lines 2 and 3
        "2,t,1.jpg,posit\n"
        "1,t,1.jpg,neutral\n"
        "3,t,1.jpg,neutral,more\n"
        "4,t\n"
        "5, ,1.jpg,neutral\n"
        '6,"a"b,1.jpg,neutral\n'
        "7,t,1.jpg,\n"
        '"8,9",t,1.jpg,neutral\n'  # a guid
        "10,t,,neutral\n"
        "11,t,gone.jpg,neutral\n"
        "12,a\x00b,1.jpg,neutral\n"
        '13,"open,1.jpg,neutral\n'
        "14,t,1.jpg,neutral\n",
        "1.jpg",
    )
    found = problems_of(root)
    assert found == [
        "train.csv:4: unknown label 'posit' (near: positive); valid: positive, neutral, negative, "
        "null (or set [data] classes)",
        "train.csv:5: guid 1 is already in line 2",
        "train.csv: 2 rows: another number of columns than the header (line 6: expected 4 columns, "
        "received 5; line 7: expected 4 columns, received 2)",
        "train.csv:9: ',' expected after '\"' (is a quote left open?)",
        "train.csv:10: guid 7 has the label null in the training file",
        "train.csv:15: unexpected end of data (is a quote left open?)",
        "train.csv:8: empty text",
        "train.csv:12: 10: no picture",
        f"train.csv:13: gone.jpg: no such file in {root.resolve()}",
        "train.csv:14: text holds a NUL or half a surrogate pair",
    ]


def test_jsonl_mistakes_in_one_pass(tmp_path: Path) -> None:
    good = {"guid": "1", "text": "t", "image": "1.jpg", "label": "neutral"}
    rows = [
        json.dumps(good),
        json.dumps(good),
        "{'guid': 2}",
        "[1]",
        json.dumps(good | {"guid": "3", "tag": "neutral"}),
        json.dumps(good | {"guid": "4", "colour": "red"}),
        json.dumps({"guid": "5", "label": "neutral"}),
        json.dumps(good | {"guid": "6", "label": 1}),
        json.dumps(good | {"guid": "7", "text": None}),
        '{"guid": "8", "guid": "9", "text": "t", "image": "1.jpg", "label": "neutral"}',
        json.dumps(good | {"guid": "10", "text": "\ud800"}),
        json.dumps(good | {"guid": "11", "image": "\x00"}),
        json.dumps(good | {"guid": "12", "label": None}),
        "[" * 100_000,
        json.dumps(good | {"guid": True}),
    ]
    found = problems_of(make_table(tmp_path, "train.jsonl", "\n".join(rows), "1.jpg"))
    valid = "valid: positive, neutral, negative, null (or set [data] classes)"
    expected = [
        ":2: guid 1 is already in line 1",
        ": 2 rows: not JSON (line 3: (Expecting property name enclosed in double quotes",
        ':4: expected one object a line, as {"text": …, "image": …}',
        ": 2 rows: a column occurs twice (label and tag are the same column) (line 5: ['guid'",
        f":8: unknown label '1'; {valid}",
        r":12: image '\x00' is not a path relative to the folder of train.jsonl",
        ":13: guid 12 has the label null in the training file",
        ":15: column guid holds True, expected a string",
        ":7: empty text",
        ":7: 5: no picture",
        ":9: empty text",
        ":11: text holds a NUL or half a surrogate pair",
    ]
    assert len(found) == len(expected)
    for problem, begin in zip(found, expected, strict=True):
        assert problem.startswith(f"train.jsonl{begin}")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "1,t,1.jpg,neutral",
            "no column text, image, label; received ['1', 't', '1.jpg', 'neutral']",
        ),
        ("guid,text,image", "no column label; received ['guid', 'text', 'image']"),
        ("text,image,label,tag", "a column occurs twice (label and tag are the same column)"),
        ("text,text,image,label", "a column occurs twice"),
        ("guid,label,likes", "train.csv: no rows after the header"),
        ("", "train.csv: no rows after the header"),
        ("text,image,label", "train.csv: no rows after the header"),
    ],
)
def test_csv_headers(tmp_path: Path, header: str, message: str) -> None:
    make_table(tmp_path, "train.csv", "\ufeff" + header + ("\n" if header else ""), "1.jpg")
    with pytest.raises(DataError) as caught:
        read_split(tmp_path, "train")
    assert message in str(caught.value)


def test_columns_that_are_not_read_are_named_once(tmp_path: Path) -> None:
    make_table(
        tmp_path,
        "train.csv",
        ",Text,image,TAG,likes\n0,t,1.jpg,nice,0\n1,u,2.jpg,bad,3\n",
        "1.jpg",
        "2.jpg",
    )
    samples, report = intake(tmp_path, "train")
    assert seen(samples) == [("1", 1, "t"), ("2", 0, "u")]
    assert report.notes == ("columns of train.csv that are not read: '', 'likes'",)


def test_images_that_share_a_name_have_guids_of_their_lines(tmp_path: Path) -> None:
    content = "text,image\nt,a/1.jpg\nu,b/1.jpg\nv,a/2.jpg\nw,a/1.jpg\n"
    make_table(tmp_path, "test.csv", content, "a/1.jpg", "b/1.jpg", "a/2.jpg")
    samples, report = intake(tmp_path, "test")
    assert [sample.guid for sample in samples] == ["1", "1-3", "2", "1-5"]
    assert report.notes == (
        "2 guids made from the line, without a picture's name or with one used before: 1-3, 1-5",
    )


def test_images_stay_inside_the_root(tmp_path: Path) -> None:
    outside = make_pairs(tmp_path / "outside", "1")
    root = make_table(
        tmp_path / "root",
        "train.csv",
        "guid,text,image,label\n1,t,../outside/1.jpg,neutral\n2,t,link.jpg,neutral\n"
        f"3,t,folder/1.jpg,neutral\n4,t,{outside}/1.jpg,neutral\n5,t,img/../in.jpg,neutral\n"
        "6,t,loop,neutral\n7,t,img,neutral\n8,t,fake.jpg,neutral\n9,t,inner.jpg,neutral\n",
        "img/1.jpg",
        "in.jpg",
    )
    (root / "link.jpg").symlink_to(outside / "1.jpg")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to("loop")
    (root / "inner.jpg").symlink_to("img/1.jpg")
    (root / "fake.jpg").write_bytes(b"PPPPPP")
    out = "leads out of the data folder"
    found = problems_of(root)
    assert found[:4] == [
        f"train.csv:5: image '{outside}/1.jpg' is not a path relative to the folder of train.csv",
        f"train.csv:2: ../outside/1.jpg: {out}",
        f"train.csv:3: link.jpg: {out}{FOLLOW_HINT}",
        f"train.csv:4: folder/1.jpg: {out}{FOLLOW_HINT}",
    ]
    assert found[4].startswith("train.csv:7: loop: ")
    assert found[5:] == [
        "train.csv:8: img: Is a directory",
        f"train.csv:9: fake.jpg: content is none of {KINDS} (begins with b'PPPPPP')",
    ]


def test_table_encoding(tmp_path: Path) -> None:
    content = "text,image\nplain,1.jpg\n好,2.jpg\n".encode("gb18030")
    make_table(tmp_path, "test.csv", content, "1.jpg", "2.jpg")
    assert read_split(tmp_path, "test", encoding="gb18030")[1].text == "好"
    assert read_split(tmp_path, "test", encoding_errors="replace")[1].text == "\ufffd\ufffd"
    with pytest.raises(DataError, match=r"test.csv:3: byte 23 is not valid utf-8"):
        read_split(tmp_path, "test")
    with pytest.raises(DataError, match="Unknown text encoding 'klingon'"):
        read_split(tmp_path, "test", encoding="klingon")


def test_unlabelled_pairs(tmp_path: Path) -> None:
    make_pairs(tmp_path, "b", "10", "9", "é", "test1", "a.b")
    (tmp_path / ".hidden.txt").write_text("x")
    samples = read_split(tmp_path, "test")
    assert [s.guid for s in samples] == ["10", "9", "a.b", "b", "test1", "é"]
    assert [s.label for s in samples] == [None] * 6
    report = intake(tmp_path, "test")[1]
    assert report == SplitSummary("pairs", "test", {"null": 6}, 0, 0)
    assert "layout pairs, split test: 6 rows kept (6 unlabelled), 0 of them" in report.summary()
    assert find_layout(DataSettings(root=tmp_path)).splits == ("test",)
    with pytest.raises(DataError, match="unlabelled pairs and no label file, hence no train split"):
        read_split(tmp_path, "train")


def test_half_pairs_are_reported(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path / "pairs", "1", "2", "3", "4,5")
    (pairs / "1.txt").unlink()
    (pairs / "2.jpg").unlink()
    assert problems_of(tmp_path, "test") == [
        f"1.txt: no such file in {pairs.resolve()}",
        f"2: no picture 2.jpg in {pairs}",
    ]


def test_two_layouts_at_once(tmp_path: Path) -> None:
    make_pairs(tmp_path / "pairs", "1")
    make_pairs(tmp_path / "data", "1")
    with pytest.raises(DataError, match="several data layouts at once: pairs and data"):
        read_split(tmp_path, "test")
    (tmp_path / "train.txt").write_text("guid,tag\n1,neutral\n")
    assert read_split(tmp_path, "train")[0].image_path == (tmp_path / "pairs/1.jpg").resolve()
    make_table(tmp_path, "test.csv", "text,image\n")
    with pytest.raises(DataError, match=r"several data layouts at once: train.txt and test.csv"):
        read_split(tmp_path, "train")
    (tmp_path / "train.txt").unlink()
    make_table(tmp_path, "test.jsonl", "")
    with pytest.raises(DataError, match=r"several files test.csv or .*: test.csv, test.jsonl"):
        read_split(tmp_path, "test")
    (tmp_path / "labelResultAll.txt").write_text(SINGLE)
    with pytest.raises(DataError, match=r"at once: test.csv and labelResultAll.txt"):
        read_split(tmp_path, "train")


def test_no_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no label file train.txt") as caught:
        read_split(tmp_path, "train")
    assert "labelResultAll.txt" in caught.value.hint
    with pytest.raises(DataError, match=r"holds no label file test\*.txt"):
        read_split(tmp_path, "test")
    with pytest.raises(DataError, match="There is no data folder"):
        read_split(tmp_path / "gone", "test")


def test_report_layout_in_one_pass(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path / "data", "1", "2")
    (pairs / "1.txt").write_text("")
    (tmp_path / "train.txt").write_text("guid,tag\n1,neutral\n2,null\n3,odd\n")
    (tmp_path / "train.png").write_bytes(picture("PNG"))  # a plot; train.txt has its header
    assert problems_of(tmp_path) == [
        "train.txt:3: guid 2 has the label null in the training file",
        "train.txt:4: unknown label 'odd'; valid: positive, neutral, negative, null "
        "(or set [data] classes)",
        "1.txt: empty file",
    ]


def test_other_classes(tmp_path: Path) -> None:
    classes = ("joy", "neutral", "anger", "fear")
    make_table(tmp_path, "train.csv", "text,image,label\nt,1.jpg,fear\n", "1.jpg")
    assert intake(tmp_path, "train", classes=classes)[0][0].label == 3
    path = tmp_path / "labels.txt"
    path.write_text("guid,tag\n1,anger\n")
    assert [row.label for row in read_labels(path, classes=classes)] == [2]
    samples, report = intake(tmp_path, "train")
    assert (samples[0].label, report.label_counts) == (0, {"fear": 1})
    assert report.notes == ("classes that occur: fear; others only if listed under [data] classes",)
    make_table(tmp_path, "train.csv", "text,image,label\nt,1.jpg,fear\nt,1.jpg,neutral\n")
    with pytest.raises(DataError, match="unknown label 'fear'; valid: positive, neutral, negative"):
        intake(tmp_path, "train")


_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30).map(
    lambda text: text.lstrip("\ufeff").strip()
)
_guid = st.text(st.sampled_from("aZ09_-é好 '\"\t"), min_size=1, max_size=6)
_row = st.fixed_dictionaries(
    {
        "guid": _guid,
        "text": _text.filter(lambda text: text == text.lstrip("\ufeff").strip() != ""),
        "image": _guid.map(lambda name: f"img/{name}.jpg"),
        "label": st.sampled_from([*LABELS, "null"]),
    }
)


def written(suffix: str, rows: list[dict[str, str]], columns: list[str], line_end: str) -> bytes:
    if suffix == ".jsonl":
        ordered = [{name: row[name] for name in columns} for row in rows]
        return "".join(json.dumps(row, ensure_ascii=False) + line_end for row in ordered).encode()
    buffer = io.StringIO(newline="")
    delimiter = "," if suffix == ".csv" else "\t"
    # Before 3.13 a cell with a lone \r is quoted only where \r is part of the line end.
    quoting = csv.QUOTE_MINIMAL if "\r" in line_end else csv.QUOTE_ALL
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerow(columns)
    writer.writerows([row[name] for name in columns] for row in rows)
    return buffer.getvalue().encode("utf-8-sig")


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(_row, min_size=1, max_size=6, unique_by=lambda row: row["guid"]),
    columns=st.permutations(["guid", "text", "image", "label"]),
    suffix=st.sampled_from([".csv", ".tsv", ".jsonl"]),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_a_written_table_reads_back(
    rows: list[dict[str, str]], columns: list[str], suffix: str, line_end: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"test{suffix}"
        path.write_bytes(written(suffix, rows, columns, line_end))
        listing = list_rows(DataSettings(root=Path(folder)), "test", LABELS)
        assert [(r.guid, r.text, r.image, r.label) for r in listing.rows()] == [
            (
                row["guid"],
                row["text"],
                row["image"],
                None if row["label"] == "null" else LABELS.index(row["label"]),
            )
            for row in rows
        ]
        assert listing.problems == []
