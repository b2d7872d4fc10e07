"""Tables of text: columns, separators, encodings, splits."""

from __future__ import annotations

import json

from .build import ROWS, TRAIN, Input, Row, csv, files, labelled, posts

_SPLIT = {"train": ROWS, "val": [ROWS[0]], "test": [("1", None, "plain rain")]}
_TEXTS = (
    "text,image,label\ngood day,0.jpg,positive\nplain rain,1.jpg,neutral\nbad sea,2.jpg,negative\n"
)
_FRENCH: list[Row] = [("0", "positive", "très bon"), *ROWS[1:]]


def _two(name: str, lines: str) -> Input:
    """A file beside ``train.csv`` that is the split ``val``."""
    return Input(
        f"{name} beside train.csv",
        files({"train.csv": _TEXTS, name: f"text,image,label\n{lines}"}),
        {"train": ROWS, "val": [ROWS[0]]},
    )


COLUMNS = [
    Input(
        "text, image, label, guid",
        posts("guid,text,image,label", "{n},{text},{image},{label}"),
        TRAIN,
    ),
    Input("Tweet, IMG, Tag, ID", posts("ID,Tweet,IMG,Tag", "{n},{text},{image},{label}"), TRAIN),
    Input("caption, image_path, sentiment", posts("caption,image_path,sentiment"), TRAIN),
    Input("sentence, file_name, class", posts("sentence,file_name,class"), TRAIN),
    Input("content, photo, target, spaces around", posts(" content , photo , target "), TRAIN),
    Input(
        "columns named by --column",
        posts("body,pic,mood"),
        TRAIN,
        flags=("--column", "text=body", "--column", "image=pic", "--column", "label=mood"),
    ),
    Input(
        "a named column beats the usual one",
        posts("text,tweet,image,label", "other,{text},{image},{label}"),
        TRAIN,
        notes=("text",),
        flags=("--column", "text=tweet"),
    ),
    Input(
        "a named column that is missing",
        posts("text,image,label"),
        problems=("train.csv:1: no column 'body' ([data.columns] text, --column text=NAME)",),
        flags=("--column", "text=body"),
    ),
    Input(
        "no column of texts",
        posts("body,image,label"),
        problems=("--column text=",),
    ),
    Input(
        "an index and other columns",
        posts(",text,image,label,likes", "{n},{text},{image},{label},9"),
        TRAIN,
        notes=("likes",),
    ),
    Input(
        "label and tag",
        posts("text,image,label,tag", "{text},{image},{label},{label}"),
        problems=("a column occurs twice (label and tag are the same column)",),
    ),
    Input(
        "no header",
        csv("good day,0.jpg,positive", "plain rain,1.jpg,neutral"),
        problems=("train.csv:1: ",),
    ),
    Input("nothing but a header", csv("text,image,label"), problems=("train.csv: no rows",)),
    Input("an empty table", csv(""), problems=("train.csv",)),
    Input(
        "a cell too many",
        csv("text,image,label", "good day,0.jpg,positive,9"),
        problems=("train.csv:2: expected 3 columns, received 4",),
    ),
    Input(
        "a quote left open",
        csv("text,image,label", '"good day,0.jpg,positive'),
        problems=("train.csv:2: ",),
    ),
]

SEPARATORS = [
    Input("semicolons", posts("text;image;label", "{text};{image};{label}"), TRAIN),
    Input(
        "semicolons, commas in the texts",
        posts("text;image;label", "so, well, {text};{image};{label}"),
        {"train": [(guid, label, f"so, well, {text}") for guid, label, text in ROWS]},
    ),
    Input("tabs in a .csv", posts("text\timage\tlabel", "{text}\t{image}\t{label}"), TRAIN),
    Input("a .tsv", posts("text\timage\tlabel", "{text}\t{image}\t{label}", "train.tsv"), TRAIN),
    Input(
        "a .tsv whose texts begin with a quote",
        posts("text\timage\tlabel", '"{text}" he said\t{image}\t{label}', "train.tsv"),
        {"train": [(guid, label, f'"{text}" he said') for guid, label, text in ROWS]},
    ),
    Input(
        "a .tsv with one open quote",
        posts("text\timage\tlabel", '"{text}\t{image}\t{label}', "train.tsv"),
        {"train": [(guid, label, f'"{text}') for guid, label, text in ROWS]},
    ),
    Input(
        "a cell over two lines",
        csv("text,image,label", '"good\nday",0.jpg,positive', "plain rain,1.jpg,neutral"),
        {"train": [("0", "positive", "good\nday"), ROWS[1]]},
    ),
    Input("CRLF and a BOM", files({"train.csv": "\ufeff" + _TEXTS.replace("\n", "\r\n")}), TRAIN),
    Input("TRAIN.CSV", files({"TRAIN.CSV": _TEXTS}), TRAIN),
]

ENCODINGS = [
    Input(
        "UTF-16 with a BOM, declared",
        files({"train.csv": _TEXTS.encode("utf-16")}),
        TRAIN,
        flags=("--encoding", "utf-16"),
    ),
    Input(
        "UTF-16 not declared",
        files({"train.csv": _TEXTS.encode("utf-16")}),
        problems=("--encoding",),
    ),
    Input(
        "cp1252, declared",
        files({"train.csv": _TEXTS.replace("good day", "très bon").encode("cp1252")}),
        {"train": _FRENCH},
        flags=("--encoding", "cp1252"),
    ),
    Input(
        "cp1252 not declared",
        files({"train.csv": _TEXTS.replace("good day", "très bon").encode("cp1252")}),
        problems=("train.csv:2",),
    ),
]

SPLITS = [
    _two("val.csv", "good day,0.jpg,positive\n"),
    _two("validation.csv", "good day,0.jpg,positive\n"),
    _two("dev.csv", "good day,0.jpg,positive\n"),
    Input(
        "train, val and test without labels",
        files(
            {
                "train.csv": _TEXTS,
                "valid.csv": "text,image,label\ngood day,0.jpg,positive\n",
                "test.csv": "text,image\nplain rain,1.jpg\n",
            }
        ),
        _SPLIT,
    ),
    Input(
        "a labelled test.csv",
        files({"train.csv": _TEXTS, "test.csv": "text,image,label\nplain rain,1.jpg,neutral\n"}),
        {"train": ROWS, "test": [ROWS[1]]},
    ),
    Input(
        "train in two parts",
        files(
            {
                "train-00000-of-00002.csv": "text,image,label\ngood day,0.jpg,positive\n",
                "train-00001-of-00002.csv": _TEXTS.replace("good day,0.jpg,positive\n", ""),
            }
        ),
        TRAIN,
    ),
    Input("one table of another name, labelled", files({"posts.csv": _TEXTS}), TRAIN),
    Input(
        "one table of another name, unlabelled",
        files({"posts.csv": "text,image\ngood day,0.jpg\n"}),
        {"test": [("0", None, "good day")]},
    ),
    Input(
        "a file is named, not a folder",
        files({"posts.csv": _TEXTS, "more.csv": _TEXTS}),
        TRAIN,
        at="posts.csv",
    ),
    Input(
        "two tables of other names",
        files({"posts.csv": _TEXTS, "more.csv": _TEXTS}),
        problems=("but tables of other names: more.csv, posts.csv.",),
    ),
    Input(
        "a gzipped table",
        files({"train.csv.gz": b"\x1f\x8b\x08" + bytes(60)}),
        problems=("train.csv.gz is compressed. Unpack it: gunzip -c train.csv.gz > train.csv",),
    ),
    Input("no such folder", files({}), problems=("There is no",), at="nowhere"),
    Input("an empty folder", files({}, 0), problems=("",)),
]


def _lines(*records: object) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


_RECORDS = [{"text": t, "image": f"{g}.jpg", "label": label} for g, label, t in ROWS]
JSON_LINES = [
    Input("JSON lines", files({"train.jsonl": _lines(*_RECORDS)}), TRAIN),
    Input("train.ndjson", files({"train.ndjson": _lines(*_RECORDS)}), TRAIN),
    Input(
        "Hateful Memes",
        files(
            {
                "train.jsonl": _lines(
                    {"id": 42953, "img": "img/0.jpg", "label": 0, "text": "good day"},
                    {"id": 23058, "img": "img/1.jpg", "label": 1, "text": "bad sea"},
                ),
                "dev.jsonl": _lines({"id": 8291, "img": "img/2.jpg", "label": 1, "text": "rain"}),
                "test.jsonl": _lines({"id": 16395, "img": "img/2.jpg", "text": "plain"}),
            },
            folder="img",
        ),
        {
            "train": [("42953", "0", "good day"), ("23058", "1", "bad sea")],
            "val": [("8291", "1", "rain")],
            "test": [("16395", None, "plain")],
        },
    ),
    Input(
        "Booleans",
        files(
            {"train.jsonl": _lines(*({**r, "label": r["label"] == "positive"} for r in _RECORDS))}
        ),
        {"train": labelled("true", "false", "false")},
    ),
    Input(
        "a line that is no JSON",
        files({"train.jsonl": _lines(*_RECORDS) + "{,}\n"}),
        problems=("train.jsonl:4: not JSON",),
    ),
    Input(
        "a line that is no object",
        files({"train.jsonl": _lines(*_RECORDS, 7)}),
        problems=("train.jsonl:4: ",),
    ),
]

TABLES = (*COLUMNS, *SEPARATORS, *ENCODINGS, *SPLITS, *JSON_LINES)
