"""Writes the ``mmsa.toml`` of a data set, with comments."""

from __future__ import annotations

import json
from collections.abc import Iterable

from extract.inputs.english import ENGLISH_SHARE
from mmsa_cache.config.hub_name import PREFIX
from mmsa_cache.config.sections import DataSettings, ImageSettings, TextSettings
from mmsa_cache.data.layouts.classes import LABELS

from .profile import DataProfile

_MULTILINGUAL = "xlm-roberta-base"


def format_config(profile: DataProfile, data: DataSettings) -> str:
    """The text of ``mmsa.toml``.

    Args:
        profile: The profile of the data set.
        data: Settings that the command was given.
    """
    lines = ["# Written by mmsa init.", "[data]", *_data_keys(profile, data), ""]
    chosen = data.columns.model_dump(exclude_none=True)
    if chosen:
        columns = [_key(role, name) for role, name in chosen.items()]
        lines += ["[data.columns]", *columns, ""]
    text, why = TextSettings().model, "the default"
    if profile.english is not None and profile.english < ENGLISH_SHARE:
        text, why = _MULTILINGUAL, f"few texts look English, which the default, {text}, is for"
    lines += [
        "# The encoders; without these lines the defaults.",
        "# [text]",
        _key("# model", text, f"hub name or folder; {why}"),
        "# [image]",
        _key("# model", ImageSettings().model, "timm name; the default"),
    ]
    return "\n".join(lines) + "\n"


def _data_keys(profile: DataProfile, data: DataSettings) -> list[str]:
    keys = [_key("root", profile.data)]
    if profile.encoding != DataSettings().encoding:
        others = f"; so they are in {' and '.join(profile.encodings[1:])}: see the posts below" * (
            len(profile.encodings) > 1
        )
        keys.append(_key("encoding", profile.encoding, f"all texts looked at are valid{others}"))
    if not set(profile.classes) <= {*LABELS}:
        keys.append(_key("classes", list(profile.classes), "in the order of their codes"))
    if profile.has_partial_rows or data.missing == "allow":
        keys.append(
            _key("missing", "allow", f'{count_partial_rows(profile)}; "refuse": they are errors')
        )
    if data.follow_links and not profile.data.startswith(PREFIX):  # the hub's copies are links
        keys.append("follow_links = true")
    if profile.agreeing is not None:
        what = (
            f"of {sum(s.rows for s in profile.splits)} only the {profile.agreeing} rows whose text"
        )
        chosen = "" if data.rows == "agreeing" else "# "
        keys.append(_key(f"{chosen}rows", "agreeing", f"{what} and picture have the same label"))
    keys.append(_key("# note", "…", "shown wherever figures from this data are"))
    return keys


def count_partial_rows(profile: DataProfile) -> str:
    """Counts of the rows that lack a text or a picture, as text."""
    texts = sum(split.without_text for split in profile.splits)
    pictures = sum(split.without_picture for split in profile.splits)
    counts = ((pictures, "picture"), (texts, "text"))
    return ", ".join(f"{count} rows have no {what}" for count, what in counts if count)


def _key(name: str, value: str | Iterable[str], comment: str = "") -> str:
    """A line of TOML, whose strings are those of JSON."""
    literal = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    line = f"{name} = {literal}"
    return f"{line:<30}  # {comment}" if comment else line
