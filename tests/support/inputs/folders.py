"""Folders of texts and pictures: the report's, raw MVSA, one per class, pairs alone."""

from __future__ import annotations

from .build import ROWS, TRAIN, Build, Input, both, files, jpeg, labelled

_TEXTS = {f"{guid}.txt": text for guid, _, text in ROWS}


def _mvsa(
    *lines: str, folder: str = "data", header: str = "ID\ttext,image", above: str = ""
) -> Build:
    """Raw MVSA, whose guids begin at 1 there."""
    content = {f"{folder}/{name}": text for name, text in _TEXTS.items()}
    content[f"{above}labelResultAll.txt"] = "".join(f"{line}\n" for line in (header, *lines))
    return files(content, folder=folder)


_SINGLE = ("0\tpositive,positive", "1\tneutral,neutral", "2\tnegative,neutral")
_AGREE = {"train": ROWS[:2]}


def _report(labels: str = "train.txt", folder: str = "pairs", **more: str) -> Build:
    rows = "".join(f"{guid},{label}\n" for guid, label, _ in ROWS)
    content = {f"{folder}/{name}": text for name, text in _TEXTS.items()} | more
    return files(content | {labels: f"guid,tag\n{rows}"}, folder=folder)


_SORTED = {"train": ROWS[::-1]}
"""By the names of the classes."""


def _by_class(*, split: str = "", texts: bool = True) -> Build:
    content: dict[str, str | bytes] = {}
    for n, (guid, label, text) in enumerate(ROWS):
        content[f"{split}{label}/{guid}.jpg"] = jpeg(n)
        if texts:
            content[f"{split}{label}/{guid}.txt"] = str(text)
    return files(content, 0)


FOLDERS = (
    Input("the report's layout", _report(), TRAIN),
    Input(
        "the report's layout, val.txt",
        _report(**{"val.txt": "guid,tag\n0,positive\n"}),
        {"train": ROWS, "val": ROWS[:1]},
    ),
    Input(
        "the report's layout, test without labels",
        _report(**{"test_without_label.txt": "guid,tag\n1,null\n"}),
        {"train": ROWS, "test": [("1", None, "plain rain")]},
    ),
    Input(
        "the first hundred guids have no text",
        files(
            {
                "train.txt": "guid,tag\n" + "".join(f"{n},positive\n" for n in range(101)),
                "pairs/100.txt": "good day",
            },
            101,
            "pairs",
        ),
        {
            "train": [
                *((str(n), "positive", None) for n in range(100)),
                ("100", "positive", "good day"),
            ]
        },
        flags=("--missing", "allow"),
    ),
    Input(
        "no guid has a text",
        files({"train.txt": "guid,tag\n9,positive\n"}, folder="pairs"),
        problems=("None of the guids in the label file has a text",),
    ),
    Input("pairs alone", files(_TEXTS), {"test": labelled(None, None, None)}),
    Input("raw MVSA-Single", _mvsa(*_SINGLE), TRAIN),
    Input("raw MVSA-Single in images/", _mvsa(*_SINGLE, folder="images"), TRAIN),
    Input(
        "raw MVSA-Single in a nested folder",
        _mvsa(*_SINGLE, folder="MVSA_Single/data", above="MVSA_Single/"),
        TRAIN,
    ),
    Input(
        "raw MVSA, spaces and capitals",
        _mvsa("0 \t Positive , positive", "1\tneutral,Neutral ", "2\tNEGATIVE,neutral"),
        TRAIN,
    ),
    Input("raw MVSA, another header", _mvsa(*_SINGLE, header="id\tText, Image"), TRAIN),
    Input(
        "raw MVSA, commas for tabs",
        _mvsa(*(line.replace("\t", ",") for line in _SINGLE), header="ID,text,image"),
        TRAIN,
    ),
    Input("raw MVSA, contradicting labels", _mvsa(*_SINGLE[:2], "2\tnegative,positive"), _AGREE),
    Input("raw MVSA, only agreeing rows", _mvsa(*_SINGLE), _AGREE, keys={"rows": "agreeing"}),
    Input(
        "raw MVSA-Multiple",
        _mvsa(
            "0\tpositive,positive\tpositive,neutral\tneutral,positive",
            "1\tneutral,neutral\tneutral,neutral\tpositive,negative",
            "2\tnegative,negative\tnegative,negative\tnegative,negative",
            header="ID\ttext,image\ttext,image\ttext,image",
        ),
        TRAIN,
    ),
    Input("a folder a class", _by_class(), _SORTED),
    Input(
        "train and test, a folder a class",
        both(_by_class(split="train/"), _by_class(split="test/")),
        {**_SORTED, "test": ROWS[::-1]},
    ),
    Input(
        "a folder a class, pictures only",
        _by_class(texts=False),
        {"train": [(guid, label, None) for guid, label, _ in ROWS[::-1]]},
        flags=("--missing", "allow"),
    ),
)
