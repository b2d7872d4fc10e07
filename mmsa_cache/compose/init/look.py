"""Looks at a data set as the other verbs will read it; pictures are not opened."""

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
from mmsa_cache.data.containers.opening import SUFFIXES as CONTAINERS
from mmsa_cache.data.files import FileNames
from mmsa_cache.data.layouts.folders import picture_file_names
from mmsa_cache.data.layouts.layout import Layout, find_layout
from mmsa_cache.data.layouts.listing import LABELS, UNKNOWN, UNLABELLED, LabelRow, Listing
from mmsa_cache.data.layouts.rows import list_rows
from mmsa_cache.data.pairs import Sample
from mmsa_cache.data.picture_paths import MEMBER_SEPARATOR
from mmsa_cache.data.reader import PairReader
from mmsa_cache.data.tables import SUFFIXES, open_table
from mmsa_cache.data.tables.columns import ROLES, find_columns
from mmsa_cache.data.tables.encodings import matching_encodings
from mmsa_cache.errors import DataError
from mmsa_cache.files.untrusted import open_regular
from mmsa_cache.names import SPLITS

from ..hub.data_set import fetch_data
from ..session.samples import classes_of

_SHOWN = 3
"""Posts that are shown, and pictures that are named."""
_READ = 50
"""Posts that tell the language."""
_MOST_CHARS = 100
"""Of a post's text."""
_TEXTS = 10_000
"""Text files that tell the encoding."""
_BEGINNING = 1 << 20
"""Bytes of each."""


@dataclass(frozen=True, slots=True)
class TableFound:
    """The columns of a table."""

    file: str
    columns: dict[str, str | None]
    """By what they hold."""


@dataclass(slots=True)
class SplitFound:
    """The rows of a split."""

    split: str
    files: list[str]
    rows: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    without_text: int = 0
    without_picture: int = 0
    absent: int = 0
    """Rows that name a picture which is not there."""
    first_absent: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PostFound:
    """One post, shortened."""

    split: str
    guid: str
    label: str
    text: str
    picture: str


@dataclass(slots=True)
class Found:
    """What a data set is like."""

    data: str
    layout: str
    encodings: list[str]
    """Those in which all texts are valid, the likeliest first."""
    encoding: str
    classes: tuple[str, ...]
    splits: list[SplitFound] = field(default_factory=list)
    tables: list[TableFound] = field(default_factory=list)
    posts: list[PostFound] = field(default_factory=list)
    english: float | None = None
    """Share of the first texts that look English."""
    agreeing: int | None = None
    """Rows of raw MVSA whose text and picture have the same label."""
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def halves(self) -> bool:
        """Whether rows lack a text or a picture."""
        return any(split.without_text or split.without_picture for split in self.splits)


def look(settings: Settings, named: Path, *, declared: bool) -> Found:
    """Looks at the data; a data set of the hub is fetched if it is not here.

    Args:
        settings: Say where it is, which of the hub's data is a copy.
        named: What the user calls it.
        declared: Whether they name its encoding too; else evidence does.

    Raises:
        SettingsError: The name of a data set of the hub is none.
        CacheError: The hub cannot be reached, or has no such data set.
        DataError: Nothing there can be read.
    """
    # Bytes that are not valid are no reason to stop before the encoding is known.
    data = fetch_data(settings).data.model_copy(update={"encoding_errors": "replace"})
    encodings = [data.encoding] if declared else _encodings(data)
    if encodings:
        data = data.model_copy(update={"encoding": encodings[0].removesuffix("-sig")})
    layout = find_layout(data)
    classes = classes_of(settings.model_copy(update={"data": data}))
    found = Found(_address(named), layout.name, encodings, data.encoding, classes)
    for split in layout.splits or SPLITS[:1]:  # where there is no split, listing says why
        listing = list_rows(data, split, found.classes)
        found.splits.append(_count(listing, layout.files[split], data))
        found.layout, found.classes = listing.layout, listing.classes
        found.notes += [note for note in listing.notes if note not in found.notes]
        found.problems += listing.problems
        found.agreeing = listing.agreeing if found.agreeing is None else found.agreeing
        if not found.posts:
            found.posts = _first(listing, data)
            found.english = english_share([post.text for post in found.posts])
    found.tables = [
        _columns(path, data)
        for split in layout.splits
        for path in layout.files[split][:1]
        if path.suffix.lower() in SUFFIXES
    ]
    found.posts = found.posts[:_SHOWN]
    if not any(split.rows for split in found.splits):
        raise DataError(
            f"No row of {found.data} can be read.",
            "Mend the files; columns of other names are given with --column text=NAME.",
            found.problems,
        )
    return found


def _address(named: Path) -> str:
    hub_name = DataSettings(root=named).hub_name
    return f"{PREFIX}{hub_name}" if hub_name else str(named)


def _encodings(data: DataSettings) -> list[str]:
    """The encodings that fit the tables and texts; utf-8 where there are none."""
    layout = find_layout(data)
    files = [path for split in layout.splits for path in layout.files[split] if path.is_file()]
    tables = [path for path in files if path.suffix.lower() not in CONTAINERS]
    found = matching_encodings(_beginnings(tables))
    if found[:1] == ["utf-16"] or len(tables) < len(files):
        return found
    return matching_encodings(
        itertools.chain(_beginnings(tables), _beginnings(_texts(layout, data)))
    )


def _texts(layout: Layout, data: DataSettings) -> Iterator[Path]:
    """The first text files."""
    for split in layout.splits:
        listing = list_rows(data, split, LABELS)
        rows = itertools.takewhile(lambda row: row.text is None, listing.rows())
        for row in itertools.islice(rows, _TEXTS):
            yield listing.folder / f"{row.stem}.txt"


def _beginnings(paths: Sequence[Path] | Iterator[Path]) -> Iterator[bytes]:
    for path in paths:
        try:
            with open_regular(path) as file:
                yield file.read(_BEGINNING)
        except (OSError, ValueError):
            continue  # reading the row says so


def _count(listing: Listing, files: Sequence[Path], data: DataSettings) -> SplitFound:
    found = SplitFound(listing.split, [_name(path, data) for path in files])
    names, labels = FileNames(listing.folder), Counter[str]()
    for row in listing.rows():
        found.rows += 1
        labels[_tag(row, listing)] += 1
        has_text, picture = _halves(row, names)
        found.without_text += not has_text
        found.without_picture += picture is None
        if picture == "":
            found.absent += 1
            found.first_absent += [str(row.image)] * (len(found.first_absent) < _SHOWN)
    found.labels = {t: labels[t] for t in (*listing.classes, UNLABELLED) if labels[t]}
    return found


def _tag(row: LabelRow, listing: Listing) -> str:
    """A row's label; of one whose label is no class, which is a problem, none."""
    code = row.label
    return UNLABELLED if code is None or code == UNKNOWN else listing.classes[code]


def _halves(row: LabelRow, names: FileNames) -> tuple[bool, str | None]:
    """Whether a row has a text, and its picture: None without one, "" where it is not there."""
    text = row.text or (row.text is None and names.first([f"{row.stem}.txt"]))
    if row.image is None:
        return bool(text), names.first(picture_file_names(row.stem))
    if MEMBER_SEPARATOR in row.image:
        return bool(text), row.image
    return bool(text), (names.first([row.image]) or "") if row.image else None


def _first(listing: Listing, data: DataSettings) -> list[PostFound]:
    reader = PairReader(listing, data.model_copy(update={"missing": "allow"}))
    rows = list(itertools.islice(listing.rows(), _READ))
    posts = []
    for row, read in zip(rows, reader.read(rows), strict=True):
        if isinstance(read, Sample):
            text, picture = read.text, _picture(read.image_path, data)
        else:
            text, picture = row.text or "; ".join(read.messages), row.image or ""
        tag = _tag(row, listing)
        posts.append(PostFound(listing.split, row.guid, tag, _short(text or ""), picture))
    return posts


def _picture(path: Path | None, data: DataSettings) -> str:
    return "" if path is None else path.relative_to(data.folder.resolve()).as_posix()


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_CHARS else f"{line[:_MOST_CHARS]}…"


def _columns(path: Path, data: DataSettings) -> TableFound:
    table = open_table(path, data.folder, data, lambda line, cause, detail: None)
    columns = find_columns(table.columns, data.columns)
    return TableFound(_name(path, data), {role: getattr(columns, role) for role in ROLES})


def _name(path: Path, data: DataSettings) -> str:
    folder = data.folder
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
