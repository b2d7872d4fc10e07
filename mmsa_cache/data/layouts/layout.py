"""Finds the layout of a data folder and the files that hold its rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.files import IMAGE_SUFFIXES
from mmsa_cache.data.tables import SUFFIXES, is_table
from mmsa_cache.data.tables.saved import STATE, saved_tables
from mmsa_cache.errors import DataError
from mmsa_cache.files.untrusted import open_regular
from mmsa_cache.names import SPLIT_STEMS, SPLITS, suggest

from .class_folders import class_folders, pair_stems
from .classes import is_unlabelled
from .folders import PAIR_FOLDERS, candidate_folders, ensure_inside, list_names
from .split_files import are_table_parts, group_by_split, table_name
from .tables import HEADER, read_tags

_TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl")
"""Suffixes of tables that are found by a split's name first; other tables are tried after pairs."""
_MVSA_LABELS = "labelResultAll.txt"
_FILE_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "report": {"train": ("train.txt",), "val": ("val.txt",), "test": ("test*.txt",)},
    "tables": {split: tuple(split + suffix for suffix in _TEXT_SUFFIXES) for split in SPLITS},
    "mvsa": {"train": (_MVSA_LABELS,), "val": (), "test": ()},
}
_NO_FILES: dict[str, tuple[Path, ...]] = dict.fromkeys(SPLITS, ())


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a data folder, and the files that hold each split's rows."""

    name: str
    files: Mapping[str, Sequence[Path]]
    """Split → label files, tables, or folders of classes or of pairs."""
    unread: Sequence[Path] = ()
    """Tables that are not read."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that can be read."""
        return tuple(split for split in SPLITS if self.files[split])


def find_layout(data: DataSettings) -> Layout:
    """Finds the layout of a data folder, or of one table.

    Raises:
        DataError: There is no such folder, or it holds several layouts.
    """
    root = data.root or data.folder
    if root.is_file():
        return _one_table([root], data)
    if not root.is_dir():
        siblings = (path.name for path in root.parent.glob("*"))
        raise DataError(
            f"There is no data folder {root}{suggest(root.name, siblings)}.",
            "Give an existing one, or a table: --data, or root of [data] in mmsa.toml.",
        )
    finder = _LayoutFinder(data)
    for find_layouts in (
        finder.named,
        finder.pairs,
        finder.tables,
        finder.nested_mvsa,
        finder.classes,
        finder.subfolder_tables,
    ):
        layouts = find_layouts()
        if len(layouts) > 1:
            files = [layout.files[layout.splits[0]][0] for layout in layouts]
            names = " and ".join(file.relative_to(root).as_posix() or "." for file in files)
            raise DataError(
                f"{root} holds several data layouts at once: {names}.",
                "Keep only one of them there, or give one with --data.",
            )
        if layouts:
            return layouts[0]
    return Layout("report", _NO_FILES, finder.other_tables())


class _LayoutFinder:
    """Finds layouts in a folder; each method knows one kind."""

    def __init__(self, data: DataSettings) -> None:
        self._data = data
        self._root = data.folder
        self._files = self._files_in(self._root)

    def named(self) -> list[Layout]:
        """Label files, tables or raw MVSA under their usual names."""
        layouts = []
        for name, patterns in _FILE_NAMES.items():
            files = {split: self._matches(patterns[split]) for split in SPLITS}
            if any(files.values()):
                completed = self._with_other_names(name, files)
                used = {path for paths in completed.values() for path in paths}
                unread = [] if name == "mvsa" else self.other_tables(used)
                layouts.append(Layout(name, completed, unread))
        return layouts

    def pairs(self) -> list[Layout]:
        """Folders of unlabelled pairs."""
        unread = self.other_tables()
        folders = [
            self._inside(self._root / name)
            for name in candidate_folders(self._root)
            if name.lower() in PAIR_FOLDERS
        ]
        return [
            Layout("pairs", {**_NO_FILES, "test": (folder,)}, unread)
            for folder in folders
            if set.intersection(*pair_stems(folder))
        ]

    def tables(self) -> list[Layout]:
        """Tables of other names, in the folder, in ``data``, or in one folder per split."""
        for folder in (self._root, self._root / "data"):
            files = group_by_split(self._tables_in(folder))
            if any(files.values()):
                return [Layout("tables", files)]
        by_split_folder = {
            split: [path for folder in self._folders_of(split) for path in self._tables_in(folder)]
            for split in SPLITS
        }
        if any(by_split_folder.values()):
            return [Layout("tables", by_split_folder)]
        for folder in (self._root, self._root / "data"):
            tables = self._tables_in(folder)
            if tables and are_table_parts(tables):
                return [_one_table(tables, self._data)]
        return []

    def nested_mvsa(self) -> list[Layout]:
        """Raw MVSA, one or two folders deep."""
        paths = [
            path
            for depth in ("*", "*/*")
            for folder in sorted(self._root.glob(depth))
            for path in self._files_in(folder)
            if path.name.lower() == _MVSA_LABELS.lower()
        ]
        return [Layout("mvsa", {**_NO_FILES, "train": (path,)}) for path in paths]

    def classes(self) -> list[Layout]:
        """One folder per class, in the data folder or in one folder per split."""
        files: dict[str, Sequence[Path]] = dict(_NO_FILES)
        for split in SPLITS:
            for folder in self._folders_of(split):
                files[split] = class_folders(folder) or ([folder] if pair_stems(folder)[1] else [])
        if not any(len(folders) > 1 for folders in files.values()):
            files = {**_NO_FILES, "train": class_folders(self._root)}
        return [Layout("classes", files)] if any(files.values()) else []

    def subfolder_tables(self) -> list[Layout]:
        """Tables in a subfolder, as in hub data sets with several configurations."""
        by_folder: dict[str, Layout] = {}
        for name in list_names(self._root, folders=True):
            root = self._inside(self._root / name)
            finder = _LayoutFinder(self._data.model_copy(update={"root": root}))
            layouts = [layout for layout in finder.named() if layout.name == "tables"]
            if layouts := layouts or finder.tables():
                by_folder[name] = layouts[0]
        if len(by_folder) > 1:
            raise DataError(
                f"{self._root} holds several data sets: {', '.join(by_folder)}.",
                f"Give one of them: --data {self._root / next(iter(by_folder))}",
            )
        return list(by_folder.values())

    def other_tables(self, used: Collection[Path] = ()) -> list[Path]:
        """The folder's tables that are not used."""
        return [path for path in self._files if is_table(path) and path not in used]

    def _inside(self, path: Path) -> Path:
        return ensure_inside(self._root, path, follow_links=self._data.follow_links)

    def _files_in(self, folder: Path) -> list[Path]:
        """The files of a folder, sorted; empty if it does not exist."""
        if not folder.is_dir():
            return []
        names = list_names(self._inside(folder), folders=False)
        paths = [folder / name for name in names if not name.startswith(".")]
        saved = saved_tables(folder) if STATE in names else None
        return [p for p in paths if saved is None or p.name in saved or p.suffix != ".arrow"]

    def _tables_in(self, folder: Path) -> list[Path]:
        return [path for path in self._files_in(folder) if is_table(path)]

    def _folders_of(self, split: str) -> list[Path]:
        names = list_names(self._root, folders=True)
        names = [name for name in names if name.lower() in SPLIT_STEMS[split]]
        return [self._inside(self._root / name) for name in names]

    def _matches(self, patterns: Sequence[str]) -> list[Path]:
        """Files that match patterns, except texts of pairs: ``test1.txt`` beside ``test1.jpg``."""
        for fold in (str, str.lower):
            regexes = [fold(p).replace(".", "[.]").replace("*", ".*") for p in patterns]
            matches = [p for r in regexes for p in self._files if re.fullmatch(r, fold(p.name))]
            matches = [path for path in matches if not _is_text_of_pair(self._inside(path))]
            if matches:
                return matches
        return []

    def _with_other_names(
        self, name: str, files: dict[str, list[Path]]
    ) -> dict[str, Sequence[Path]]:
        """Completes a layout: splits without files get those of other usual names."""
        if name == "mvsa":
            return dict(files)
        suffixes = (".txt",) if name == "report" else SUFFIXES[:4]
        of_other_names = group_by_split(
            path
            for path in self._files
            if path.suffix.lower() in suffixes
            and any(table_name(path).lower() in stems for stems in SPLIT_STEMS.values())
            and (name != "report" or _has_header(path))
        )
        return {split: files[split] or of_other_names[split] for split in SPLITS}


def _one_table(files: Sequence[Path], data: DataSettings) -> Layout:
    """The layout of one table: the split it is named by, else train if it has labels, else test."""
    by_split = group_by_split(files[:1])
    split_name = next((split for split in SPLITS if by_split[split]), None)
    labelled = split_name or any(not is_unlabelled(tag) for tag in read_tags(files, data))
    return Layout("tables", {**_NO_FILES, split_name or ("train" if labelled else "test"): files})


def _is_text_of_pair(path: Path) -> bool:
    if path.suffix.lower() != ".txt" or not any(
        path.with_suffix(suffix).is_file() for suffix in IMAGE_SUFFIXES
    ):
        return False
    return not _has_header(path)


def _has_header(path: Path) -> bool:
    """Whether a file begins with a label file's header."""
    try:
        with open_regular(path) as file:
            return file.read(16).decode("utf-8-sig", "replace").startswith(HEADER)
    except (OSError, ValueError):
        return True  # reading it as a label file reports the error


def split_paths(root: Path, layout: Layout, split: str) -> Sequence[Path]:
    """The files of a split.

    Raises:
        DataError: There are none, or several that are not parts of one table.
    """
    paths = layout.files[split]
    if len(paths) == 1 or layout.name == "classes" or are_table_parts(paths):
        return paths
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
    expected = " or ".join(_FILE_NAMES[layout.name][split])
    if paths:
        names = ", ".join(path.name for path in paths)
        raise DataError(
            f"{root} holds several files {expected}: {names}.", "Keep one of them there."
        )
    kind = "table" if layout.name == "tables" else "label file"
    if layout.splits:
        raise DataError(
            f"{root} holds no {kind} {expected}: it has no split {split}.",
            f"Its splits: {', '.join(layout.splits)}.",
        )
    if layout.unread:
        names = ", ".join(path.name for path in layout.unread[:5])
        raise DataError(
            f"{root} holds no label file {expected}, but tables of other names: {names}.",
            f"Give one with --data, or name it {split}{layout.unread[0].suffix}.",
        )
    raise DataError(
        f"{root} holds no label file {expected}.",
        f"Expected a text file that begins with the line '{HEADER}', a table "
        f"({split}.csv, .tsv, .jsonl, …), raw MVSA's {_MVSA_LABELS} or a folder a class.",
    )
