"""Which layout a data folder has, and the files that hold its rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.files import IMAGE_SUFFIXES
from mmsa_cache.data.tables import SUFFIXES
from mmsa_cache.errors import DataError
from mmsa_cache.names import SPLIT_STEMS, SPLITS
from mmsa_cache.untrusted import open_plain

from .class_folders import class_folders, stems
from .classes import is_unlabelled
from .folders import OWN, folders_of, inside, names_in
from .tables import HEADER, tags_of

_PLAIN = (".csv", ".tsv", ".jsonl")
"""Endings of tables that are taken wherever they have a split's name; others come after pairs."""
_MVSA = "labelResultAll.txt"
_FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "report": {"train": ("train.txt",), "val": ("val.txt",), "test": ("test*.txt",)},
    "tables": {split: tuple(split + suffix for suffix in _PLAIN) for split in SPLITS},
    "mvsa": {"train": (_MVSA,), "val": (), "test": ()},
}
_NONE: dict[str, tuple[Path, ...]] = dict.fromkeys(SPLITS, ())
_PART = re.compile(r"[-_.]?\d+([-_.]of[-_.]\d+)?$")
"""How the name of one of several files of a split ends."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which layout a data folder has, and the files that hold each split's rows."""

    name: str
    files: Mapping[str, Sequence[Path]]
    """Label files or tables; folders of classes or of pairs."""
    beside: Sequence[Path] = ()
    """Tables that are not read."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that can be read."""
        return tuple(split for split in SPLITS if self.files[split])


def find_layout(data: DataSettings) -> Layout:
    """Finds the layout of a data folder, or of one table.

    Raises:
        DataError: No folder, no layout, or two layouts at once.
    """
    root = data.root or data.folder
    if root.is_file():
        return _one_table([root], data)
    if not root.is_dir():
        raise DataError(
            f"There is no data folder {root}.", "Give an existing one, or a table, with --data."
        )
    finder = _Finder(data)
    for find in (finder.named, finder.pairs, finder.tables, finder.nested, finder.classes):
        found = find()
        if len(found) > 1:
            files = [layout.files[layout.splits[0]][0] for layout in found]
            names = " and ".join(file.relative_to(root).as_posix() or "." for file in files)
            raise DataError(
                f"{root} holds several data layouts at once: {names}.",
                "Keep only one of them there, or give one with --data.",
            )
        if found:
            return found[0]
    return Layout("report", _NONE)


class _Finder:
    """Looks for layouts in a folder, each way on its own."""

    def __init__(self, data: DataSettings) -> None:
        self._data = data
        self._root = data.folder
        self._files = self._files_in(self._root)

    def named(self) -> list[Layout]:
        """Label files, tables or raw MVSA under their usual names."""
        found = []
        for name, patterns in _FILES.items():
            files = {split: self._matches(patterns[split]) for split in SPLITS}
            if any(files.values()):
                found.append(Layout(name, self._with_others(name, files)))
        return found

    def pairs(self) -> list[Layout]:
        """Folders of unlabelled pairs."""
        beside = [path for path in self._files if _is_table(path)]
        folders = [
            self._inside(self._root / name)
            for name in folders_of(self._root)
            if name.lower() in OWN
        ]
        return [
            Layout("pairs", {**_NONE, "test": (folder,)}, beside)
            for folder in folders
            if set.intersection(*stems(folder))
        ]

    def tables(self) -> list[Layout]:
        """Tables of other names, in the folder, in ``data``, or in a folder a split."""
        for folder in (self._root, self._root / "data"):
            files = _by_split(path for path in self._files_in(folder) if _is_table(path))
            if any(files.values()):
                return [Layout("tables", files)]
        of_split = {split: self._tables_of(split) for split in SPLITS}
        if any(of_split.values()):
            return [Layout("tables", of_split)]
        for folder in (self._root, self._root / "data"):
            every = [path for path in self._files_in(folder) if _is_table(path)]
            if every and len({_PART.sub("", path.stem) + path.suffix for path in every}) == 1:
                return [_one_table(every, self._data)]
        return []

    def nested(self) -> list[Layout]:
        """Raw MVSA in a folder below."""
        found = [
            path
            for depth in ("*", "*/*")
            for folder in sorted(self._root.glob(depth))
            for path in self._files_in(folder)
            if path.name.lower() == _MVSA.lower()
        ]
        return [Layout("mvsa", {**_NONE, "train": (path,)}) for path in found]

    def classes(self) -> list[Layout]:
        """A folder per class, of each split or of the whole."""
        files: dict[str, Sequence[Path]] = dict(_NONE)
        for split in SPLITS:
            for folder in self._folders_of(split):
                files[split] = class_folders(folder) or ([folder] if stems(folder)[1] else [])
        if not any(len(folders) > 1 for folders in files.values()):
            files = {**_NONE, "train": class_folders(self._root)}
        return [Layout("classes", files)] if any(files.values()) else []

    def _inside(self, path: Path) -> Path:
        return inside(self._root, path, follow_links=self._data.follow_links)

    def _files_in(self, folder: Path) -> list[Path]:
        """The files of a folder by name; none where there is no folder."""
        if not folder.is_dir():
            return []
        names = names_in(self._inside(folder), folders=False)
        return [folder / name for name in names if not name.startswith(".")]

    def _folders_of(self, split: str) -> list[Path]:
        names = names_in(self._root, folders=True)
        names = [name for name in names if name.lower() in SPLIT_STEMS[split]]
        return [self._inside(self._root / name) for name in names]

    def _tables_of(self, split: str) -> list[Path]:
        return [
            path
            for folder in self._folders_of(split)
            for path in self._files_in(folder)
            if _is_table(path)
        ]

    def _matches(self, patterns: Sequence[str]) -> list[Path]:
        """Files of some names. ``test1.txt`` beside ``test1.jpg`` is the text of a pair."""
        for fold in (str, str.lower):
            whole = [re.compile(fold(p).replace(".", "[.]").replace("*", ".*")) for p in patterns]
            found = [path for p in whole for path in self._files if p.fullmatch(fold(path.name))]
            found = [path for path in found if not _is_text_of_pair(self._inside(path))]
            if found:
                return found
        return []

    def _with_others(self, name: str, files: dict[str, list[Path]]) -> dict[str, Sequence[Path]]:
        """The files of a layout, with those of other usual names for splits that have none."""
        if name == "mvsa":
            return dict(files)
        kinds = (".txt",) if name == "report" else SUFFIXES[:4]
        others = _by_split(
            path
            for path in self._files
            if path.suffix.lower() in kinds
            and path.stem.lower() in {stem for stems in SPLIT_STEMS.values() for stem in stems}
            and (name != "report" or _has_header(path))
        )
        return {split: files[split] or others[split] for split in SPLITS}


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _by_split(paths: Iterable[Path]) -> dict[str, Sequence[Path]]:
    """Tables by the split that their names begin with: those of its name alone, or numbered."""
    every = list(paths)
    found: dict[str, Sequence[Path]] = {}
    for split, names in SPLIT_STEMS.items():
        stems = "|".join(names)
        of = [p for p in every if re.match(rf"({stems})([-_.\d]|$)", p.stem.lower())]
        exact = [path for path in of if path.stem.lower() in names]
        parts = [path for path in of if _PART.sub("", path.stem.lower()) in names]
        found[split] = exact or parts or of
    return found


def _one_table(files: Sequence[Path], data: DataSettings) -> Layout:
    """Tables of no split's name: rows to train on where there are labels."""
    of = _by_split(files[:1])
    named = next((split for split in SPLITS if of[split]), None)
    labelled = named or any(not is_unlabelled(tag) for tag in tags_of(files, data))
    return Layout("tables", {**_NONE, named or ("train" if labelled else "test"): files})


def _is_text_of_pair(path: Path) -> bool:
    if path.suffix.lower() != ".txt" or not any(
        path.with_suffix(suffix).is_file() for suffix in IMAGE_SUFFIXES
    ):
        return False
    return not _has_header(path)


def _has_header(path: Path) -> bool:
    """Whether a file begins as a label file does."""
    try:
        with open_plain(path) as file:
            return file.read(16).decode("utf-8-sig", "replace").startswith(HEADER)
    except (OSError, ValueError):
        return True  # reading it as a label file says why


def files_of(root: Path, layout: Layout, split: str) -> Sequence[Path]:
    """The files of a split.

    Raises:
        DataError: There are none, or several that are not the parts of one table.
    """
    found = layout.files[split]
    kinds = {_PART.sub("", path.stem) + path.suffix for path in found}
    if len(found) == 1 or layout.name == "classes" or (len(kinds) == 1 and _numbered(found)):
        return found
    if layout.name == "mvsa":
        raise DataError(
            f"{layout.files['train'][0]} is raw MVSA, which has no {split} split.",
            "All of it is the split train.",
        )
    if layout.name == "pairs":
        raise DataError(
            f"{root} holds unlabelled pairs and no label file, hence no {split} split.",
            "All the pairs are the split test.",
        )
    wanted = " or ".join(_FILES[layout.name][split])
    if found:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{root} holds several files {wanted}: {names}.", "Keep one of them there.")
    if layout.name == "tables":
        raise DataError(f"{root} holds no table {wanted}.", "Put it beside the other one.")
    raise DataError(
        f"{root} holds no label file {wanted}.",
        f"Expected a text file that begins with the line '{HEADER}', a table "
        f"({split}.csv, .tsv, .jsonl, …), raw MVSA's {_MVSA} or a folder a class.",
    )


def _numbered(files: Sequence[Path]) -> bool:
    return all(_PART.search(path.stem) for path in files)
