"""Tables and label files as people have them, and what is said of each."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from mmsa_cache.config.sections import ColumnSettings, DataSettings
from mmsa_cache.data.inspection import inspect
from mmsa_cache.data.layouts.classes import LABELS, ClassNames, infer_classes
from mmsa_cache.data.layouts.layout import find_layout
from mmsa_cache.data.layouts.listing import LabelRow, Listing
from mmsa_cache.data.layouts.rows import classes_of, list_rows, read_labels
from mmsa_cache.data.tables.columns import find_columns
from mmsa_cache.data.tables.encodings import matching_encodings
from mmsa_cache.errors import DataError, SettingsError
from tests.support.reading import intake


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10), (90, 20, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


def put(root: Path, *names: str) -> Path:
    """Pictures, and texts that say their own name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"post {path.stem}".encode() if path.suffix == ".txt" else jpeg())
    return root


def write(root: Path, name: str, content: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def listed(root: Path, split: str = "train", **how: object) -> tuple[Listing, list[LabelRow]]:
    data = DataSettings.model_validate({"root": root, **how})
    listing = list_rows(data, split, classes_of(data))
    return listing, list(listing.rows())


def told(listing: Listing, rows: list[LabelRow]) -> list[tuple[str, str | None]]:
    assert listing.problems == []
    tags = dict(enumerate(listing.classes))
    return [(row.guid, None if row.label is None else tags[row.label]) for row in rows]


# --- columns ------------------------------------------------------------------------------------


def test_columns_by_usual_name_and_by_setting() -> None:
    found = find_columns(["", "Tweet", "photo", "Sentiment", "ID", "likes"], ColumnSettings())
    assert (found.text, found.image, found.label, found.guid) == (
        "Tweet",
        "photo",
        "Sentiment",
        "ID",
    )
    assert found.left_out == ("", "likes")
    assert find_columns(["content", "text"], ColumnSettings()).text == "text"
    assert find_columns([], ColumnSettings()).used == ()
    named = find_columns(["text", "body", "mood "], ColumnSettings(text="body", label="mood"))
    assert (named.text, named.label, named.left_out) == ("body", "mood ", ("text",))
    (problem,) = find_columns(["text"], ColumnSettings(label="mood")).problems
    assert problem == "no column 'mood' ([data.columns] label, --column label=NAME)"
    for doubled in (["label", "tag"], ["text", "text"]):
        assert "occurs twice" in find_columns(doubled, ColumnSettings()).problems[0]
    assert not find_columns(["label", "sentiment", "x", "x"], ColumnSettings()).problems


def test_columns_are_set_in_three_ways() -> None:
    wanted = ColumnSettings(text="tweet", label="mood")
    for value in (
        {"text": "tweet", "label": "mood"},
        ["text=tweet", "label=mood"],
        "text=tweet,label=mood",
    ):
        assert DataSettings.model_validate({"columns": value}).columns == wanted
    for wrong in (["text"], "text", {"colour": "red"}):
        with pytest.raises(ValueError, match=r"ROLE=COLUMN|Extra inputs"):
            DataSettings.model_validate({"columns": wrong})


# --- CSV as pandas, Excel and hands write it ----------------------------------------------------

PANDAS = ",id,tweet,img,class\n0,1.0,good,a.jpg,True\n1,2.0,bad,b.jpg,False\n2,3.0,so,c.jpg,True\n"


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("index", ["", "Unnamed: 0"])
def test_what_pandas_writes(tmp_path: Path, start: str, index: str) -> None:
    write(tmp_path, "train.csv", start + index + PANDAS)
    listing, rows = listed(tmp_path)
    assert told(listing, rows) == [("1", "True"), ("2", "False"), ("3", "True")]
    assert (rows[0].text, rows[0].image) == ("good", "a.jpg")
    assert listing.classes == ("False", "True")
    assert listing.notes == [
        f"columns of train.csv that are not read: {index!r}",
        "3 guids of a column of floats, read as integers: 1.0→1, 2.0→2, 3.0→3",
    ]


def test_a_guid_with_a_point_stays_where_others_are_no_floats(tmp_path: Path) -> None:
    write(tmp_path, "test.csv", "guid,text,image\n1.0,t,a.jpg\n1.1,t,b.jpg\n")
    assert [row.guid for row in listed(tmp_path, "test")[1]] == ["1.0", "1.1"]


def test_guids_of_floats_name_pairs(tmp_path: Path) -> None:
    put(tmp_path / "pairs", "1.txt", "1.jpg", "2.txt", "2.jpg")
    write(tmp_path, "train.txt", "guid,tag\n1.0,positive\n2.0,negative\n")
    samples, _ = intake(tmp_path, "train")
    assert [(s.guid, s.text) for s in samples] == [("1", "post 1"), ("2", "post 2")]
    put(tmp_path / "pairs", "1.0.txt", "1.0.jpg", "2.0.txt", "2.0.jpg")
    assert [s.guid for s in intake(tmp_path, "train")[0]] == ["1.0", "2.0"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_found(tmp_path: Path, suffix: str, separator: str) -> None:
    rows = [["text", "image", "label"], ["a", "1.jpg", "nice"], ["b", "2.jpg", "bad"]]
    write(tmp_path, f"train{suffix}", "\r\n".join(map(separator.join, rows)))
    assert told(*listed(tmp_path)) == [("1", "nice"), ("2", "bad")]


def test_excel_in_a_declared_encoding(tmp_path: Path) -> None:
    content = "text;image;label\r\nKäse;1.jpg;gut\r\n;2.jpg;schlecht\r\n".encode("cp1252")
    write(tmp_path, "train.csv", content)
    listing, rows = listed(tmp_path, encoding="cp1252")
    assert (listing.classes, rows[0].text) == (("gut", "schlecht"), "Käse")
    with pytest.raises(DataError, match=r"train.csv:2: byte 19 is not valid utf-8; its beginning"):
        listed(tmp_path)


def test_utf_16_says_so(tmp_path: Path) -> None:
    write(tmp_path, "test.csv", "text,image\nt,1.jpg\n".encode("utf-16"))
    with pytest.raises(DataError, match="its beginning is valid utf-16"):
        listed(tmp_path, "test")
    assert listed(tmp_path, "test", encoding="utf-16")[1][0].text == "t"


def test_text_of_tab_separated_files_may_begin_with_a_quote(tmp_path: Path) -> None:
    write(
        tmp_path,
        "train.tsv",
        'text\timage\tlabel\n"Go" she said\t1.jpg\tgood\n"open\t2.jpg\tbad\n'
        'it is 5" wide\t3.jpg\tbad\n',
    )
    listing, rows = listed(tmp_path)
    assert [row.text for row in rows] == ['"Go" she said', '"open', 'it is 5" wide']
    assert listing.problems == []
    write(tmp_path, "train.tsv", 'text\timage\tlabel\n"a\tb\nc"\t1.jpg\tgood\nd\t2.jpg\tbad\n')
    assert [row.text for row in listed(tmp_path)[1]] == ["a\tb\nc", "d"]


def test_long_texts_up_to_the_limit(tmp_path: Path) -> None:
    write(tmp_path, "test.csv", f"text,image\n{'x' * (1 << 20)},1.jpg\n{'x' * (1 << 20)}y,2.jpg\n")
    rows = listed(tmp_path, "test")[1]
    assert [(len(row.text or ""), row.flaw) for row in rows] == [
        (1 << 20, ""),
        ((1 << 20) + 1, "text is longer than 1048576 bytes"),
    ]


def test_one_error_a_cause(tmp_path: Path) -> None:
    lines = [f"t,{i}.jpg,{'happy' if i % 2 else 'positive'}" for i in range(2000)]
    write(tmp_path, "train.csv", "text,image,label\n" + "\n".join(lines))
    listing, _ = listed(tmp_path)
    assert listing.problems == [
        "train.csv: 1000 rows: unknown label 'happy'; valid: positive, neutral, negative, null "
        "(or set [data] classes) (lines 3, 5, 7, …)"
    ]
    write(
        tmp_path, "train.csv", "text,image,label\n" + "\n".join(f"t,{i},{i}" for i in range(2000))
    )
    with pytest.raises(DataError, match="more than 1000 different labels"):
        listed(tmp_path)
    listing, _ = listed(tmp_path, classes=["a", "b"])
    assert len(listing.problems) == 6
    assert listing.problems[-1] == (
        "train.csv: 1995 rows: unknown label (line 7: '5'; line 8: '6'; line 9: '7'; …)"
    )


def test_quotes_of_two_tsv_lines_do_not_make_them_one(tmp_path: Path) -> None:
    rows = ['1.jpg\t"hey\tpositive', '2.jpg\tho"\tnegative', "3.jpg\tq\tneutral"]
    write(tmp_path, "train.tsv", "\n".join(["image\ttext\tlabel", *rows]))
    assert [row.text for row in listed(tmp_path)[1]] == ['"hey', 'ho"', "q"]


def test_indented_json_says_what_is_wrong_with_its_lines(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", '[\n {\n  "image": "1.jpg"\n }\n]\n')
    listing, rows = listed(tmp_path)
    assert rows == []
    assert "5 rows: not JSON" in listing.problems[0]


@pytest.mark.parametrize("folder", ["train", "train_images", "images/train"])
def test_pictures_in_a_folder_called_as_the_table(tmp_path: Path, folder: str) -> None:
    write(tmp_path, "train.csv", "text,image,label\na,1.jpg,x\nb,2.jpg,y\n")
    write(tmp_path, f"{folder}/1.jpg", b"")
    write(tmp_path, f"{folder.replace('train', 'test')}/2.jpg", b"")
    assert [row.image for row in listed(tmp_path)[1]] == [f"{folder}/1.jpg", f"{folder}/2.jpg"]


def test_tables_beside_a_split_are_named(tmp_path: Path) -> None:
    for name in ("train.csv", "train_old.csv", "more.csv"):
        write(tmp_path, name, "text,image,label\na,1.jpg,x\nb,2.jpg,y\n")
    notes = listed(tmp_path)[0].notes
    assert "tables that are not read: more.csv, train_old.csv (give one with --data FILE)" in notes


def test_a_table_without_a_header_says_what_is_expected(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", "I like it,1.jpg,positive\nbad,2.jpg,negative\n")
    listing, rows = listed(tmp_path)
    assert rows == []
    assert listing.problems == [
        "train.csv:1: no column text, image, label; received ['I like it', '1.jpg', 'positive'] "
        "(name one with --column text=NAME)"
    ]


# --- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        (["happy ", "happy", "sad", " sad"], ("happy", "sad")),
        (["Joy", "joy", "JOY", "joy", "calm"], ("calm", "joy")),
        (["1", "0", "", "NaN", "null"], ("0", "1")),
        (["1.0", "0.0"], ("0", "1")),
        (["10", "9"], ("10", "9")),
        (["True", "False"], ("False", "True")),
        (["POSITIVE", "negative "], ("positive", "negative")),
        (["positive"], LABELS),
        (["positive", "negative", "mixed"], LABELS),
        (["<UNK>", "a/b", "负面"], ("<UNK>", "a/b", "负面")),
        ([], ()),
    ],
)
def test_class_names_of_labels(tags: list[str], names: tuple[str, ...]) -> None:
    assert infer_classes(tags) == names


def test_labels_that_differ_in_case_are_apart_only_where_classes_do() -> None:
    apart = ClassNames(["Joy", "joy", "sad"])
    assert [apart.code_of(tag)[0] for tag in ("Joy", "joy", "JOY", " sad", "nan")] == [
        0,
        1,
        -2,
        2,
        None,
    ]
    assert ClassNames(["nan", "x"]).code_of("nan") == (0, "")


def test_labels_of_numbers_and_truth_values(tmp_path: Path) -> None:
    rows = [{"text": "t", "image": f"{i}.jpg", "label": tag} for i, tag in enumerate([1, 0, True])]
    write(tmp_path, "train.jsonl", "\n".join(map(json.dumps, rows)))
    assert told(*listed(tmp_path)) == [("0", "1"), ("1", "0"), ("2", "true")]


def test_what_is_taken_is_counted_and_what_is_missing_is_noted(tmp_path: Path) -> None:
    content = "text,image,label\nt,1.jpg,Positive\nt,2.jpg, negative\nt,3.jpg,negative\n"
    write(tmp_path, "train.csv", content)
    write(tmp_path, "test.csv", "text,image,label\nt,4.jpg,NaN\nt,5.jpg,\nt,6.jpg,null\n")
    listing, rows = listed(tmp_path)
    assert told(listing, rows) == [("1", "positive"), ("2", "negative"), ("3", "negative")]
    assert listing.notes == [
        "classes that occur: positive, negative; others only if listed under [data] classes",
        "2 labels matched without case and spaces: 'Positive' as positive, ' negative' as negative",
    ]
    assert [row.label for row in listed(tmp_path, "test")[1]] == [None] * 3
    listing, _ = listed(tmp_path, classes=LABELS)
    assert listing.notes[-1] == "classes without a row in train: neutral"
    write(tmp_path, "test.csv", "text,image,label\nt,4.jpg,neutral\n")
    assert listed(tmp_path, "test")[0].classes == LABELS  # a split that judges has it


# --- guids and pictures -------------------------------------------------------------------------


def test_guids_may_have_commas_and_spaces(tmp_path: Path) -> None:
    put(tmp_path / "pairs", "a, b.txt", "a, b.jpg", "c d.txt", "c d.jpg")
    write(tmp_path, "train.txt", 'guid,tag\n"a, b",positive\nc d,negative\n')
    assert [s.guid for s in intake(tmp_path, "train")[0]] == ["a, b", "c d"]


def test_paths_of_windows_are_paths(tmp_path: Path) -> None:
    put(tmp_path, "img/1.jpg", "img/2.jpg")
    rows = f"t,img\\1.jpg\nt,{tmp_path}/img/2.jpg\nt,C:\\x\\3.jpg\nt,/elsewhere/4.jpg\n"
    write(tmp_path, "test.csv", "text,image\n" + rows)
    listing, rows_ = listed(tmp_path, "test")
    assert [(row.guid, row.image) for row in rows_] == [("1", "img/1.jpg"), ("2", "img/2.jpg")]
    assert listing.problems == [
        "test.csv: 2 rows: the image is not a path relative to the folder of test.csv (line 4: "
        "image 'C:\\\\x\\\\3.jpg' is not a path relative to the folder of test.csv; line 5: image "
        "'/elsewhere/4.jpg' is not a path relative to the folder of test.csv)"
    ]


def test_pictures_in_a_folder_beside_the_table(tmp_path: Path) -> None:
    put(tmp_path, "Images/1.jpg", "Images/2.png")
    write(tmp_path, "posts.csv", "id,text,img,label\n7,t,1.jpg,a\n8,u,2,b\n")
    samples, _ = intake(tmp_path, "train")
    assert [(s.guid, s.picture_name) for s in samples] == [("7", "1.jpg"), ("8", "2.png")]
    write(tmp_path, "posts.csv", "id,text,label\n1,t,a\n2,u,b\n")
    samples, _ = intake(tmp_path, "train")
    assert [(s.guid, s.picture_name) for s in samples] == [("1", "1.jpg"), ("2", "2.png")]


def test_pictures_that_were_fetched_stand_under_their_names(tmp_path: Path) -> None:
    put(tmp_path, "images/1.jpg")
    write(tmp_path, "test.csv", "text,image\nt,https://example.org/media/1.jpg?size=large\n")
    samples, _ = intake(tmp_path, "test")
    assert [(s.guid, s.picture_name) for s in samples] == [("1", "1.jpg")]


def test_label_files_may_be_separated_by_tabs_and_have_other_columns(tmp_path: Path) -> None:
    put(tmp_path, "1.txt", "1.jpg", "2.txt", "2.jpg")
    write(tmp_path, "train.txt", "\tguid\ttag\tlikes\n0\t1\tpositive\t3\n1\t2\tnegative\t4\n")
    samples, report = intake(tmp_path, "train")
    assert [(s.guid, s.label) for s in samples] == [("1", 0), ("2", 1)]
    assert report.notes[-1] == "columns of train.txt that are not read: '', 'likes'"


def test_label_files_are_inspected_without_their_texts_and_pictures(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", "text,image,label\nt,gone.jpg,nice\n,2.jpg,bad\nt,2.jpg,bad\n")
    write(tmp_path, "val.csv", "text,image,label\nt,3.jpg,odd\n")
    found = inspect(DataSettings(root=tmp_path), None)
    assert found.labels == {"train": {0: 2, 1: 1}, "val": {None: 1}}
    assert found.posts == []
    assert [(p.split, p.message) for p in found.problems] == [
        (
            "val",
            "val.csv:2: unknown label 'odd'; valid: bad, nice, null (or set [data] classes)",
        )
    ]


def test_a_table_of_guids_and_labels_names_pairs(tmp_path: Path) -> None:
    put(tmp_path, "images/1.jpg", "texts/1.txt", "images/2.jpg", "texts/2.txt")
    write(tmp_path, "train.csv", "id;label\n1;a\n2;b\n")
    samples, _ = intake(tmp_path, "train")
    assert [(s.guid, s.text, s.label) for s in samples] == [("1", "post 1", 0), ("2", "post 2", 1)]


def test_no_text_is_said_only_when_it_is_so(tmp_path: Path) -> None:
    guids = [str(number) for number in range(150)]
    tags = "".join(f"{guid},{('positive', 'negative')[int(guid) % 2]}\n" for guid in guids)
    write(tmp_path, "train.txt", "guid,tag\n" + tags)
    with pytest.raises(DataError, match="None of the guids in the label file has a text"):
        intake(tmp_path, "train")
    put(tmp_path / "data", "149.txt", "149.jpg")
    with pytest.raises(DataError) as caught:
        intake(tmp_path, "train")
    assert caught.value.problems[0].startswith("0.txt: no such file in")
    assert caught.value.problems[-1] == "… and 288 more: missing"
    assert len(caught.value.problems) == 11


# --- layouts ------------------------------------------------------------------------------------


def splits(root: Path, **how: object) -> dict[str, list[str]]:
    data = DataSettings.model_validate({"root": root, **how})
    layout = find_layout(data)
    base = data.folder
    return {
        split: [path.relative_to(base).as_posix() for path in layout.files[split]]
        for split in layout.splits
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.csv", "dev.csv"], {"train": ["train.csv"], "val": ["dev.csv"]}),
        (
            ["train.csv", "validation.jsonl", "test.csv"],
            {"train": ["train.csv"], "val": ["validation.jsonl"], "test": ["test.csv"]},
        ),
        (["Train.CSV", "TEST.csv"], {"train": ["Train.CSV"], "test": ["TEST.csv"]}),
        (["train.txt", "valid.txt"], {"train": ["train.txt"], "val": ["valid.txt"]}),
        (["train.txt", "val.txt"], {"train": ["train.txt"], "val": ["val.txt"]}),
        (["training.csv", "testing.csv"], {"train": ["training.csv"], "test": ["testing.csv"]}),
        (["train.csv", "train_old.csv"], {"train": ["train.csv"]}),
        (["train_clean.csv"], {"train": ["train_clean.csv"]}),
        (
            ["train-00001-of-00002.csv", "train-00000-of-00002.csv"],
            {"train": ["train-00000-of-00002.csv", "train-00001-of-00002.csv"]},
        ),
        (
            ["data/train.csv", "data/dev.csv"],
            {"train": ["data/train.csv"], "val": ["data/dev.csv"]},
        ),
        (
            ["train/metadata.csv", "test/metadata.csv"],
            {"train": ["train/metadata.csv"], "test": ["test/metadata.csv"]},
        ),
        (["posts.csv"], {"train": ["posts.csv"]}),
        (["part_1.csv", "part_2.csv"], {"train": ["part_1.csv", "part_2.csv"]}),
        (["a.csv", "b.csv"], {}),
    ],
)
def test_which_file_is_which_split(
    tmp_path: Path, names: list[str], expected: dict[str, list[str]]
) -> None:
    for name in names:
        content = "guid,tag\n1,positive\n" if name.endswith(".txt") else "text,image,label\nt,1,a\n"
        write(tmp_path, name, content)
    assert splits(tmp_path) == expected


def test_one_table(tmp_path: Path) -> None:
    put(tmp_path / "img", "1.jpg", "2.jpg")
    table = write(tmp_path, "img/posts.tsv", "text\timage\tmood\nt\t1.jpg\tnice\nu\t2.jpg\tbad\n")
    assert splits(table, columns={"label": "mood"}) == {"train": ["posts.tsv"]}
    samples, _ = intake(table, "train", columns={"label": "mood"})
    assert [(s.guid, s.label) for s in samples] == [("1", 1), ("2", 0)]
    assert splits(table) == {"test": ["posts.tsv"]}  # mood is no usual name
    assert splits(write(tmp_path, "test.csv", "text,image,label\nt,1.jpg,a\n")) == {
        "test": ["test.csv"]
    }
    with pytest.raises(DataError, match="There is no data folder"):
        splits(tmp_path / "gone.csv")


def test_tables_beside_pairs_are_named(tmp_path: Path) -> None:
    put(tmp_path, "data/1.txt", "data/1.jpg")
    write(tmp_path, "answers.csv", "guid,tag\n1,positive\n")
    listing, rows = listed(tmp_path, "test")
    assert told(listing, rows) == [("1", None)]
    assert listing.notes == ["tables that are not read: answers.csv (give one with --data FILE)"]
    listing, rows = listed(tmp_path / "answers.csv")
    assert told(listing, rows) == [("1", "positive")]
    assert listing.folder == tmp_path
    assert [s.text for s in intake(tmp_path / "answers.csv", "train")[0]] == ["post 1"]


def test_a_folder_per_class(tmp_path: Path) -> None:
    names = ["positive/1.jpg", "positive/1.txt", "negative/1.jpg", "negative/1.txt"]
    put(tmp_path / "all", *names, "negative/2.jpg", "negative/2.txt")
    samples, report = intake(tmp_path / "all", "train")
    assert report.layout == "classes"
    assert [(s.guid, s.label, s.text) for s in samples] == [
        ("negative-1", 1, "post 1"),
        ("2", 1, "post 2"),
        ("positive-1", 0, "post 1"),
    ]
    for split in ("train", "test"):
        put(tmp_path / "split" / split, *names)
    put(tmp_path / "split/val", "a.jpg", "a.txt")
    found = {s: intake(tmp_path / "split", s)[0].labels.tolist() for s in ("train", "val", "test")}
    assert found == {"train": [1, 0], "val": [-1], "test": [1, 0]}


SINGLE = ["1 positive positive", "2 neutral positive", "3 negative positive", "4 neutral neutral"]


@pytest.mark.parametrize(
    ("folder", "header", "join"),
    [
        ("data", "ID\ttext,image", "{}\t{},{}"),
        ("images", "id\ttext,image ", "{}\t{}, {} "),
        ("Images", "ID,text,image", "{},{},{}"),
        ("MVSA_Single/data", "ID\ttext\timage", "{}\t{}\t{}"),
        ("a/b/images", "Id text,image", "{}\t{},{}"),
    ],
)
def test_raw_mvsa_as_it_goes_round(tmp_path: Path, folder: str, header: str, join: str) -> None:
    put(tmp_path / folder, *(f"{n}.{end}" for n in "1234" for end in ("txt", "jpg")))
    lines = [header, *(join.format(*line.title().split()) for line in SINGLE)]
    label_file = "labelResultAll.txt" if folder != "Images" else "LabelResultAll.txt"
    write((tmp_path / folder).parent, label_file, "\n".join(lines))
    samples, report = intake(tmp_path, "train")
    assert [(s.guid, s.label, s.text) for s in samples] == [
        ("1", 0, "post 1"),
        ("2", 0, "post 2"),
        ("4", 1, "post 4"),
    ]
    assert (report.layout, report.merged, report.dropped) == ("MVSA-Single", 1, 1)
    samples, report = intake(tmp_path, "train", rows="agreeing")
    assert [s.guid for s in samples] == ["1", "4"]
    assert (report.merged, report.dropped) == (0, 2)


def test_texts_and_pictures_of_mvsa_in_folders_of_their_own(tmp_path: Path) -> None:
    put(tmp_path, "texts/1.txt", "images/1.png", "texts/2.txt", "images/2.jpg")
    write(
        tmp_path, "labelResultAll.txt", "ID\ttext,image\n1\tpositive,positive\n2\tneutral,neutral"
    )
    samples, _ = intake(tmp_path, "train")
    assert [(s.text, s.picture_name) for s in samples] == [("post 1", "1.png"), ("post 2", "2.jpg")]


def test_agreeing_rows_are_counted_by_check_and_asked_of_raw_mvsa_only(tmp_path: Path) -> None:
    rows = ["1\tpositive,positive", "2\tneutral,positive", "3\tnegative,positive"]
    write(tmp_path, "labelResultAll.txt", "\n".join(["ID\ttext,image", *rows]))
    found = inspect(DataSettings(root=tmp_path), None)
    assert found.notes[-1] == (
        "train: text and picture have the same label in 1 of 3 rows; rows = 'agreeing' under "
        "[data] keeps those alone"
    )
    assert (found.dropped, found.labels["train"].total()) == (1, 2)
    (tmp_path / "labelResultAll.txt").unlink()
    write(tmp_path, "train.csv", "text,image,label\nt,1.jpg,a\n")
    with pytest.raises(SettingsError, match="only raw MVSA has labels of texts and of pictures"):
        listed(tmp_path, rows="agreeing")


def test_labels_of_any_table(tmp_path: Path) -> None:
    table = write(
        tmp_path, "truth.csv", "text;image;Label\nt;img/7.jpg;POSITIVE\nu;8.jpg;neutral\n"
    )
    assert [(row.guid, row.label) for row in read_labels(table)] == [("7", 0), ("8", 1)]


# --- encodings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "names"),
    [
        ([b"plain", "好".encode()], ["utf-8"]),
        (["\ufeffx".encode(), b"y"], ["utf-8-sig"]),
        (["x".encode("utf-16"), "好".encode("utf-16")], ["utf-16"]),
        (["好的".encode("gb18030")], ["gb18030", "cp1252"]),
        (["café crème".encode("cp1252")], ["cp1252"]),
        (["好".encode()[:2]], ["utf-8"]),  # cut within a character
        ([b"a\0b"], []),
        ([], ["utf-8"]),
    ],
)
def test_encodings_that_fit(samples: list[bytes], names: list[str]) -> None:
    assert matching_encodings(samples) == names


def test_rows_without_any_cell_are_blank_lines(tmp_path: Path) -> None:
    write(put(tmp_path, "1.jpg", "2.jpg"), "train.csv", "text,image,label\na,1.jpg,positive\n,,\n")
    listing, rows = listed(tmp_path)
    assert told(listing, rows) == [("1", "positive")]
    write(tmp_path, "train.csv", "text,image,label\n , ,\nb,2.jpg,neutral\n,,\n,,\n")
    listing, rows = listed(tmp_path)
    assert told(listing, rows) == [("2", "neutral")]
    assert rows[0].line == 3
