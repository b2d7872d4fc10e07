"""The ``mmsa.toml`` of a data set, with comments."""

from __future__ import annotations

import json
from collections.abc import Iterable

from extract.inputs.english import ENGLISH_SHARE
from mmsa_cache.config.hub_name import PREFIX
from mmsa_cache.config.sections import DataSettings, ImageSettings, TextSettings
from mmsa_cache.data.layouts.classes import LABELS

from .look import Found

_MULTILINGUAL = "xlm-roberta-base"


def config_of(found: Found, data: DataSettings) -> str:
    """Writes the settings.

    Args:
        found: What the data set is like.
        data: What the command was told of it.
    """
    lines = ["# Written by mmsa init.", "[data]", *_data_keys(found, data), ""]
    chosen = data.columns.model_dump(exclude_none=True)
    if chosen:
        columns = [_key(role, name) for role, name in chosen.items()]
        lines += ["[data.columns]", *columns, ""]
    text, why = TextSettings().model, "the default"
    if found.english is not None and found.english < ENGLISH_SHARE:
        text, why = _MULTILINGUAL, f"few texts look English, which the default, {text}, is for"
    lines += [
        "# The encoders; without these lines the defaults.",
        "# [text]",
        _key("# model", text, f"hub name or folder; {why}"),
        "# [image]",
        _key("# model", ImageSettings().model, "timm name; the default"),
    ]
    return "\n".join(lines) + "\n"


def _data_keys(found: Found, data: DataSettings) -> list[str]:
    keys = [_key("root", found.data)]
    if found.encoding != DataSettings().encoding:
        others = f"; so they are in {' and '.join(found.encodings[1:])}: see the posts below" * (
            len(found.encodings) > 1
        )
        keys.append(_key("encoding", found.encoding, f"all texts looked at are valid{others}"))
    if not set(found.classes) <= {*LABELS}:
        keys.append(_key("classes", list(found.classes), "in the order of their codes"))
    if found.halves or data.missing == "allow":
        keys.append(_key("missing", "allow", f'{halves(found)}; "refuse": they are errors'))
    if data.follow_links and not found.data.startswith(PREFIX):  # the hub's copies are links
        keys.append("follow_links = true")
    if found.agreeing is not None:
        what = f"of {sum(s.rows for s in found.splits)} only the {found.agreeing} rows whose text"
        chosen = "" if data.rows == "agreeing" else "# "
        keys.append(_key(f"{chosen}rows", "agreeing", f"{what} and picture have the same label"))
    keys.append(_key("# note", "…", "shown wherever figures from this data are"))
    return keys


def halves(found: Found) -> str:
    """How many rows lack a half."""
    texts = sum(split.without_text for split in found.splits)
    pictures = sum(split.without_picture for split in found.splits)
    counts = ((pictures, "picture"), (texts, "text"))
    return ", ".join(f"{count} rows have no {what}" for count, what in counts if count)


def _key(name: str, value: str | Iterable[str], comment: str = "") -> str:
    """A line of TOML. Strings are written as in JSON, which TOML reads alike."""
    written = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    line = f"{name} = {written}"
    return f"{line:<30}  # {comment}" if comment else line
