"""Which layout a data folder has, and the files that hold its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from mmsa_cache.data.files import IMAGE_SUFFIXES, LEADS_OUT
from mmsa_cache.errors import DataError
from mmsa_cache.names import SPLITS
from mmsa_cache.untrusted import open_plain

from .listing import LabelRow
from .report import HEADER

_TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
_MVSA_FILE = "labelResultAll.txt"
_FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "report": {"train": ("train.txt",), "val": ("val.txt",), "test": ("test*.txt",)},
    "tables": {split: tuple(split + suffix for suffix in _TABLE_SUFFIXES) for split in SPLITS},
    "mvsa": {"train": (_MVSA_FILE,), "val": (), "test": ()},
}
_NONE: dict[str, tuple[Path, ...]] = dict.fromkeys(SPLITS, ())


@dataclass(frozen=True, slots=True)
class Layout:
    """Which layout a data folder has, and the files that hold each split's rows."""

    name: str
    files: Mapping[str, Sequence[Path]]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that can be read."""
        return tuple(split for split in SPLITS if self.files[split])


def find_layout(root: Path) -> Layout:
    """Finds the layout of a data folder.

    Raises:
        DataError: No folder, no layout, or two layouts at once.
    """
    if not root.is_dir():
        raise DataError(f"There is no data folder {root}.", "Give an existing one with --data DIR.")
    found = [
        layout
        for name, patterns in _FILES.items()
        if (layout := Layout(name, {s: _matches(root, patterns[s]) for s in SPLITS})).splits
    ]
    if not found:
        folders = [f for f in _pair_folders(root) if set.intersection(*stems(f))]
        found = [Layout("pairs", {**_NONE, "test": (folder,)}) for folder in folders]
    if len(found) > 1:
        files = [layout.files[layout.splits[0]][0] for layout in found]
        names = " and ".join(file.relative_to(root).as_posix() or "." for file in files)
        raise DataError(
            f"{root} holds several data layouts at once: {names}.", "Keep only one of them there."
        )
    return found[0] if found else Layout("report", _NONE)


def pairs_folder(root: Path, rows: Sequence[LabelRow]) -> Path:
    """Finds the first of ``DIR/pairs``, ``DIR/data`` and ``DIR`` that holds some of the pairs.

    Raises:
        DataError: None does.
    """
    for folder in _pair_folders(root):
        if any((folder / f"{row.guid}.txt").is_file() for row in rows[:100]):
            return folder
    raise DataError(
        f"None of the guids in the label file has a text in {root}/pairs, {root}/data or {root}.",
        "Put GUID.txt and GUID.jpg of every row into one of these folders.",
    )


def _matches(root: Path, patterns: Sequence[str]) -> list[Path]:
    """Label files of one split. ``test1.txt`` beside ``test1.jpg`` is the text of a pair."""
    found = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    paths = [path for path in found if _inside(root, path).is_file()]
    return [path for path in paths if not _is_text_of_pair(path)]


def _is_text_of_pair(path: Path) -> bool:
    if path.suffix != ".txt" or not any(
        path.with_suffix(suffix).is_file() for suffix in IMAGE_SUFFIXES
    ):
        return False
    try:
        with open_plain(path) as file:
            return not file.read(16).decode("utf-8-sig", "replace").startswith(HEADER)
    except (OSError, ValueError):
        return False  # reading it as a label file says why


def _pair_folders(root: Path) -> tuple[Path, ...]:
    return _inside(root, root / "pairs"), _inside(root, root / "data"), root


def _inside(root: Path, path: Path) -> Path:
    """A path in the data folder.

    Raises:
        DataError: It is a link that leads out of it.
    """
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{path}: {LEADS_OUT}, by a link.",
            "Put what it leads to into the data folder, or give --data the folder it leads to.",
        )
    return path


def stems(folder: Path) -> tuple[set[str], set[str]]:
    """Guids that have a text, and guids that have a picture."""
    files = [PurePath(f.name) for f in folder.iterdir()] if folder.is_dir() else []
    files = [file for file in files if not file.name.startswith(".")]
    texts = {file.stem for file in files if file.suffix == ".txt"}
    return texts, {file.stem for file in files if file.suffix in IMAGE_SUFFIXES}


def source_of(root: Path, layout: Layout, split: str) -> Path:
    found = layout.files[split]
    if len(found) == 1:
        return found[0]
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
        f"({split}.csv, .tsv or .jsonl) or raw MVSA's {_MVSA_FILE}.",
    )
