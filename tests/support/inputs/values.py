"""Values of cells: labels, guids, paths, texts, missing halves."""

from __future__ import annotations

from .build import ROWS, TRAIN, Input, Row, csv, files, jpeg, labelled, posts

_HEADER = "text,image,label"
_MIB = 1 << 20


def _labels(*labels: str) -> list[str]:
    return [
        f"{text},{guid}.jpg,{label}" for (guid, _, text), label in zip(ROWS, labels, strict=True)
    ]


def _names(name: str, first: str, second: str) -> Input:
    """Class names that are none of the usual."""
    made = csv(_HEADER, *_labels(first, second, first))
    return Input(f"labels {name}", made, {"train": labelled(first, second, first)})


LABELS = [
    Input(
        "labels 0 and 1", csv(_HEADER, *_labels("0", "1", "0")), {"train": labelled("0", "1", "0")}
    ),
    Input(
        "labels 1.0 and 0.0",
        csv(_HEADER, *_labels("1.0", "0.0", "1.0")),
        {"train": labelled("1", "0", "1")},
    ),
    Input(
        "labels True and False",
        csv(_HEADER, *_labels("True", "False", "True")),
        {"train": labelled("True", "False", "True")},
    ),
    _names("<UNK> and a/b", "<UNK>", "a/b"),
    _names("负面 and 正面", "负面", "正面"),
    _names("=x and -y", "=x", "-y"),
    _names("of two words", "very good", "not bad"),
    Input(
        "labels in another case, spaces around",
        csv(_HEADER, *_labels("Positive", "neutral ", " NEGATIVE")),
        TRAIN,
        notes=("'Positive' as positive",),
    ),
    Input(
        "happy and 'happy '",
        csv(_HEADER, *_labels("happy", "sad", "happy ")),
        {"train": labelled("happy", "sad", "happy")},
        notes=("'happy ' as happy",),
    ),
    Input(
        "an unknown label",
        csv(_HEADER, *_labels("positive", "meh", "negative")),
        problems=("train.csv:3: unknown label 'meh'; valid: positive, ",),
    ),
    Input(
        "the key that an unknown label needs",
        csv(_HEADER, *_labels("positive", "meh", "negative")),
        problems=("[data] classes",),
    ),
    Input(
        "many unknown labels",
        csv(
            _HEADER, *(f"t,0.jpg,meh{n}" for n in range(40)), "a,1.jpg,positive", "b,2.jpg,negative"
        ),
        problems=(
            *(f"train.csv:{line}: unknown label 'meh{line - 2}'; valid: " for line in range(2, 7)),
            "train.csv: 35 rows: unknown label (line 7: 'meh5'; line 8: 'meh6'; line 9: 'meh7'; …)",
        ),
    ),
    Input(
        "a label of control characters",
        csv(_HEADER, *_labels("x\x1b[2J", "y", "y")),
        problems=("the label 'x\\x1b[2J' cannot be the name of a class",),
    ),
    Input(
        "classes that are listed",
        csv(_HEADER, *_labels("positive", "meh", "negative")),
        {"train": labelled("positive", "meh", "negative")},
        keys={"classes": "positive,meh,negative"},
    ),
    Input(
        "two of the three sentiments",
        csv(_HEADER, *_labels("positive", "negative", "positive")),
        {"train": labelled("positive", "negative", "positive")},
        notes=("positive, negative",),
    ),
    Input(
        "one class",
        csv(_HEADER, *_labels("positive", "positive", "positive")),
        {"train": labelled("positive", "positive", "positive")},
        notes=("neutral, negative",),
    ),
    Input(
        "test labels empty, null, NaN",
        files(
            {
                "train.csv": "\n".join((_HEADER, *_labels("positive", "neutral", "negative"))),
                "test.csv": "\n".join((_HEADER, *_labels("", "null", "NaN"))),
            }
        ),
        {"train": ROWS, "test": labelled(None, None, None)},
    ),
    Input(
        "a training row without a label",
        csv(_HEADER, *_labels("positive", "NaN", "negative")),
        problems=("train.csv:3: ",),
    ),
]

GUIDS = [
    Input(
        "guids 0.0, 1.0, 2.0",
        posts("guid,text,image,label", "{n}.0,{text},{image},{label}"),
        TRAIN,
        notes=("1.0",),
    ),
    Input(
        "guids with commas and spaces",
        posts("guid,text,image,label", '"a, {n}",{text},{image},{label}'),
        {"train": [(f"a, {guid}", label, text) for guid, label, text in ROWS]},
    ),
    Input(
        "a guid twice",
        posts("guid,text,image,label", "7,{text},{image},{label}"),
        problems=("train.csv: 2 rows: duplicate guids (line 3: guid 7 is already in line 2",),
    ),
    Input(
        "a guid that goes up",
        csv("guid,text,image,label", "../x,good day,0.jpg,positive"),
        problems=("train.csv:2: guid '../x' is not a plain file name",),
    ),
    Input(
        "a picture of several posts",
        csv(
            _HEADER, "good day,0.jpg,positive", "bad sea,0.jpg,negative", "plain rain,1.jpg,neutral"
        ),
        {"train": [("0", "positive", "good day"), ("0-3", "negative", "bad sea"), ROWS[1]]},
        notes=("0-3",),
    ),
    Input(
        "equal names in two folders",
        files(
            {
                "train.csv": f"{_HEADER}\ngood day,a/0.jpg,positive\nbad sea,b/0.jpg,negative\n",
                "a/0.jpg": jpeg(0),
                "b/0.jpg": jpeg(1),
            },
            0,
        ),
        {"train": [("0", "positive", "good day"), ("0-3", "negative", "bad sea")]},
        notes=("0-3",),
    ),
]

PATHS = [
    Input(
        "Windows paths",
        files(
            {
                "train.csv": f"{_HEADER}\ngood day,img\\0.jpg,positive\n"
                "bad sea,.\\img\\1.jpg,negative\n"
            },
            folder="img",
        ),
        {"train": [ROWS[0], ("1", "negative", "bad sea")]},
    ),
    Input(
        "spaces around a path",
        csv(_HEADER, "good day, 0.jpg ,positive", "bad sea,1.jpg,negative"),
        {"train": [ROWS[0], ("1", "negative", "bad sea")]},
    ),
    Input(
        "a path out of the folder",
        csv(_HEADER, "good day,../0.jpg,positive", name="data/train.csv"),
        problems=("train.csv:2: ../0.jpg: leads out of the data folder",),
        at="data",
    ),
    Input(
        "a URL",
        csv(_HEADER, "good day,https://example.org/x/9.jpg,positive"),
        problems=("is a URL: download the pictures beside train.csv first",),
    ),
    Input(
        "a URL whose picture lies beside",
        csv(_HEADER, "good day,https://example.org/x/0.jpg,positive", "bad sea,2.jpg,negative"),
        {"train": [ROWS[0], ROWS[2]]},
    ),
    Input("an absolute path", csv(_HEADER, "good day,/0.jpg,positive"), problems=("'/0.jpg'",)),
]

_HALVES = "text,image,label\ngood day,,positive\n,1.jpg,neutral\nbad sea,2.jpg,negative\n"
_HALF_ROWS: list[Row] = [
    ("row-2", "positive", "good day"),
    ("1", "neutral", None),
    ("2", "negative", "bad sea"),
]
TEXTS = [
    Input(
        "a text of 1 MiB",
        csv(_HEADER, f"{'a' * _MIB},0.jpg,positive", "bad sea,2.jpg,negative"),
        {"train": [("0", "positive", "a" * _MIB), ROWS[2]]},
    ),
    Input(
        "a text of more",
        csv(_HEADER, f"{'a' * _MIB}b,0.jpg,positive", "bad sea,2.jpg,negative"),
        problems=(f"text is longer than {_MIB} bytes",),
        reason=f"text is longer than {_MIB} bytes",
    ),
    Input(
        "halves that are missing",
        files({"train.csv": _HALVES}),
        problems=("train.csv:2: row-2: no picture", "train.csv:3: empty text"),
        reason="missing, empty text",
    ),
    Input(
        "halves that may be missing",
        files({"train.csv": _HALVES}),
        {"train": _HALF_ROWS},
        flags=("--missing", "allow"),
    ),
    Input(
        "neither half",
        csv(_HEADER, ",,positive", "bad sea,2.jpg,negative"),
        problems=("train.csv:2: row-2: neither a text nor a picture",),
        reason="empty row",
        flags=("--missing", "allow"),
    ),
    Input(
        "a picture that is named and missing",
        csv(_HEADER, "good day,0.jpg,positive", "bad sea,9.jpg,negative"),
        problems=("train.csv:3: 9.jpg: no such file",),
        reason="missing",
        flags=("--missing", "allow"),
    ),
]

VALUES = (*LABELS, *GUIDS, *PATHS, *TEXTS)
