"""Profiles a data set as the other verbs will read it; pictures are not opened."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from extract.inputs.english import english_share
from mmsa_cache.config.hub_name import PREFIX
from mmsa_cache.config.sections import DataSettings
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.files import FileNames
from mmsa_cache.data.layouts.folders import picture_file_names
from mmsa_cache.data.layouts.layout import Layout, find_layout
from mmsa_cache.data.layouts.listing import LABELS, UNKNOWN, UNLABELLED, LabelRow, Listing
from mmsa_cache.data.layouts.rows import list_rows
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.picture_paths import CONTAINER_SUFFIXES, MEMBER_SEPARATOR
from mmsa_cache.data.reader import PairReader
from mmsa_cache.data.tables import SUFFIXES, open_table
from mmsa_cache.data.tables.columns import ROLES, find_columns
from mmsa_cache.data.tables.encodings import matching_encodings
from mmsa_cache.errors import DataError
from mmsa_cache.files.untrusted import open_regular
from mmsa_cache.names import SPLITS

from ..hub.data_set import fetch_data
from ..session.samples import classes_of

_MAX_SHOWN = 3
"""Posts that are shown, and missing pictures that are listed."""
_LANGUAGE_POSTS = 50
"""Posts that the language is estimated from."""
_MAX_CHARS = 100
"""Characters shown of a text."""
_ENCODING_FILES = 10_000
"""Text files that the encoding is estimated from."""
_ENCODING_BYTES = 1 << 20
"""Bytes that are read of each file."""


@dataclass(frozen=True, slots=True)
class TableProfile:
    """The columns of a table."""

    file: str
    columns: dict[str, str | None]
    """Role → name; None where the table has no such column."""


@dataclass(slots=True)
class SplitProfile:
    """The rows of a split."""

    split: str
    files: list[str]
    rows: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    without_text: int = 0
    without_picture: int = 0
    absent: int = 0
    """Rows whose picture is missing."""
    first_absent: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PostPreview:
    """A shortened post."""

    split: str
    guid: str
    label: str
    text: str
    picture: str


@dataclass(slots=True)
class DataProfile:
    """The layout, splits, encoding and first posts of a data set."""

    data: str
    layout: str
    encodings: list[str]
    """Encodings in which all texts are valid, the likeliest first."""
    encoding: str
    classes: tuple[str, ...]
    splits: list[SplitProfile] = field(default_factory=list)
    tables: list[TableProfile] = field(default_factory=list)
    posts: list[PostPreview] = field(default_factory=list)
    english: float | None = None
    """Share of the first texts that profile_data English."""
    agreeing: int | None = None
    """Rows of raw MVSA whose text and picture have the same label."""
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def has_partial_rows(self) -> bool:
        """Whether some rows lack a text or a picture."""
        return any(split.without_text or split.without_picture for split in self.splits)


def profile_data(settings: Settings, named: Path, *, declared: bool) -> DataProfile:
    """Profiles a data set; one of the hub is downloaded if it is missing.

    Args:
        settings: Name the data set.
        named: The data set as the user named it.
        declared: Whether the user has named its encoding; else it is estimated.

    Raises:
        SettingsError: The name of a data set of the hub is invalid.
        CacheError: The hub cannot be reached, or has no such data set.
        DataError: No row can be read.
    """
    # Invalid bytes are accepted until the encoding is known.
    data = fetch_data(settings).data.model_copy(update={"encoding_errors": "replace"})
    encodings = [data.encoding] if declared else _encodings(data)
    if encodings:
        data = data.model_copy(update={"encoding": encodings[0].removesuffix("-sig")})
    layout = find_layout(data)
    classes = classes_of(settings.model_copy(update={"data": data}))
    profile = DataProfile(_address(named), layout.name, encodings, data.encoding, classes)
    for split in layout.splits or SPLITS[:1]:  # without a split, listing one reports the reason
        listing = list_rows(data, split, profile.classes)
        profile.splits.append(_count_rows(listing, layout.files[split], data))
        profile.layout, profile.classes = listing.layout, listing.classes
        profile.notes += [note for note in listing.notes if note not in profile.notes]
        profile.problems += listing.problems
        profile.agreeing = listing.agreeing if profile.agreeing is None else profile.agreeing
        if not profile.posts:
            profile.posts = _first_posts(listing, data)
            profile.english = english_share([post.text for post in profile.posts])
    profile.tables = [
        _columns(path, data)
        for split in layout.splits
        for path in layout.files[split][:1]
        if path.suffix.lower() in SUFFIXES
    ]
    profile.posts = profile.posts[:_MAX_SHOWN]
    if not any(split.rows for split in profile.splits):
        raise DataError(
            f"No row of {profile.data} can be read.",
            "Mend the files; columns of other names are given with --column text=NAME.",
            profile.problems,
        )
    return profile


def _address(named: Path) -> str:
    hub_name = DataSettings(root=named).hub_name
    return f"{PREFIX}{hub_name}" if hub_name else str(named)


def _encodings(data: DataSettings) -> list[str]:
    """The encodings in which tables and texts are valid; utf-8 where there are none."""
    layout = find_layout(data)
    files = [path for split in layout.splits for path in layout.files[split] if path.is_file()]
    tables = [path for path in files if path.suffix.lower() not in CONTAINER_SUFFIXES]
    encodings = matching_encodings(_beginnings(tables))
    if encodings[:1] == ["utf-16"] or len(tables) < len(files):
        return encodings
    return matching_encodings(
        itertools.chain(_beginnings(tables), _beginnings(_texts(layout, data)))
    )


def _texts(layout: Layout, data: DataSettings) -> Iterator[Path]:
    """The first text files."""
    for split in layout.splits:
        listing = list_rows(data, split, LABELS)
        rows = itertools.takewhile(lambda row: row.text is None, listing.rows())
        for row in itertools.islice(rows, _ENCODING_FILES):
            yield listing.folder / f"{row.stem}.txt"


def _beginnings(paths: Sequence[Path] | Iterator[Path]) -> Iterator[bytes]:
    for path in paths:
        try:
            with open_regular(path) as file:
                yield file.read(_ENCODING_BYTES)
        except (OSError, ValueError):
            continue  # reading the row reports it


def _count_rows(listing: Listing, files: Sequence[Path], data: DataSettings) -> SplitProfile:
    profile = SplitProfile(listing.split, [_name(path, data) for path in files])
    names, labels = FileNames(listing.folder), Counter[str]()
    for row in listing.rows():
        profile.rows += 1
        labels[_tag(row, listing)] += 1
        has_text, picture = _modalities(row, names)
        profile.without_text += not has_text
        profile.without_picture += picture is None
        if picture == "":
            profile.absent += 1
            if len(profile.first_absent) < _MAX_SHOWN:
                profile.first_absent.append(str(row.image))
    profile.labels = {t: labels[t] for t in (*listing.classes, UNLABELLED) if labels[t]}
    return profile


def _tag(row: LabelRow, listing: Listing) -> str:
    """A row's label; a label that is no class counts as none, and is reported as a problem."""
    code = row.label
    return UNLABELLED if code is None or code == UNKNOWN else listing.classes[code]


def _modalities(row: LabelRow, names: FileNames) -> tuple[bool, str | None]:
    """Whether a row has a text, and its picture: None without one, "" if it is missing."""
    text = row.text or (row.text is None and names.find_first([f"{row.stem}.txt"]))
    if row.image is None:
        return bool(text), names.find_first(picture_file_names(row.stem))
    if MEMBER_SEPARATOR in row.image:
        return bool(text), row.image
    return bool(text), (names.find_first([row.image]) or "") if row.image else None


def _first_posts(listing: Listing, data: DataSettings) -> list[PostPreview]:
    reader = PairReader(listing, data.model_copy(update={"missing": "allow"}))
    rows = list(itertools.islice(listing.rows(), _LANGUAGE_POSTS))
    posts = []
    for row, read in zip(rows, reader.read(rows), strict=True):
        if isinstance(read, Sample):
            text, picture = read.text, _picture(read.image_path, data)
        else:
            text, picture = row.text or "; ".join(read.messages), row.image or ""
        tag = _tag(row, listing)
        posts.append(PostPreview(listing.split, row.guid, tag, _shorten(text or ""), picture))
    return posts


def _picture(path: Path | None, data: DataSettings) -> str:
    return "" if path is None else path.relative_to(data.folder.resolve()).as_posix()


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_CHARS else f"{line[:_MAX_CHARS]}…"


def _columns(path: Path, data: DataSettings) -> TableProfile:
    table = open_table(path, data.folder, data, lambda line, cause, detail: None)
    columns = find_columns(table.columns, data.columns)
    return TableProfile(_name(path, data), {role: getattr(columns, role) for role in ROLES})


def _name(path: Path, data: DataSettings) -> str:
    folder = data.folder
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
