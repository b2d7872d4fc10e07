"""Shards of ``webdataset``: ``000.jpg``, ``000.txt``, ``000.json`` and ``000.cls`` are one post.

As in the library ``webdataset`` a key is a name up to its first dot. If that gives several pictures
one key, keys contain dots and end before the last one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from io import BufferedReader
from itertools import islice
from pathlib import Path, PurePosixPath

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.containers.tar import TarMember, members
from mmsa_cache.data.files import IMAGE_SUFFIXES, MAX_TEXT_BYTES
from mmsa_cache.data.picture_paths import member_path
from mmsa_cache.errors import DataError
from mmsa_cache.files.untrusted import open_regular, parse_json
from mmsa_cache.json_value import object_at

from . import Cell, Note
from .arrow_table import check_table_path

KEY = "__key__"
_TEXTS = (".txt", ".text", ".caption")
_LABELS = (".cls", ".label")
_LOOK = 1000
"""First members, which decide on the keys and columns."""


def open_table(path: Path, root: Path, data: DataSettings, note: Note) -> TarTable:
    """Opens a shard; see `mmsa_cache.data.tables`."""
    check_table_path(path, root, data)
    return TarTable(path, root, note)


class TarTable:
    """See `TableFile`.

    Args:
        path: The shard.
        root: Where the paths of pictures start.
        note: Collects problems.

    Raises:
        DataError: It is not a tar.
    """

    def __init__(self, path: Path, root: Path, note: Note) -> None:
        self._path, self._note = path, note
        self._relative_path = path.relative_to(root).as_posix()
        self.names: dict[str, tuple[str, ...]] = {}
        self._dotted = False
        try:
            with open_regular(path) as file:
                first = list(islice(members(file, path.name), _LOOK))
            self._dotted = _has_dotted_keys(first)
        except (OSError, ValueError) as error:
            raise DataError(f"{path.name}: {error}") from error
        peeked = islice(self._records(lambda *_: None), 10)
        self.columns = tuple(dict.fromkeys(name for _, cells in peeked for name in cells))

    def records(self) -> Iterator[tuple[int, dict[str, Cell]]]:
        """See `TableFile`; the members of a post's JSON are cells too."""
        return self._records(self._note)

    def _records(self, note: Note) -> Iterator[tuple[int, dict[str, Cell]]]:
        row, key, cells = 0, None, dict[str, Cell]()

        def passed_over(name: str) -> None:
            note(row + 1, "a member that is no plain file, or leads out of the shard", name)

        try:
            with open_regular(self._path) as file:
                for member in members(file, self._path.name, passed_over):
                    if PurePosixPath(member.name).name.startswith("."):
                        continue
                    member_key, kind = self._split(member.name)
                    if member_key != key:
                        if key is not None and len(cells) > 1:
                            row += 1
                            yield row, cells
                        key, cells = member_key, {KEY: member_key.replace("/", "_")}
                    self._add(cells, member, kind, file, functools.partial(note, row + 1))
        except (OSError, ValueError) as error:
            raise DataError(f"{self._path.name}: {error}") from error
        if key is not None and len(cells) > 1:
            yield row + 1, cells

    def _split(self, name: str) -> tuple[str, str]:
        """Key and suffix, the latter in lower case."""
        folder, _, last = name.rpartition("/")
        stem, dot, rest = last.rpartition(".") if self._dotted else last.partition(".")
        key = stem if dot else last
        kind = PurePosixPath(f"x.{rest}").suffix.lower() if dot else ""
        return (f"{folder}/{key}" if folder else key), kind

    def _add(
        self,
        cells: dict[str, Cell],
        member: TarMember,
        kind: str,
        file: BufferedReader,
        note: Callable[[str, str], None],
    ) -> None:
        if kind in IMAGE_SUFFIXES:
            if "image" in cells:
                note("a post with several pictures", member.name)
            cells["image"] = member_path(self._relative_path, member.name)
        elif kind in (*_TEXTS, *_LABELS, ".json"):
            if member.size > MAX_TEXT_BYTES:
                note(f"a text of more than {MAX_TEXT_BYTES} bytes", member.name)
                return
            file.seek(member.offset)
            data = file.read(member.size)
            try:
                if kind == ".json":
                    self._add_json(cells, data)
                else:
                    cells["label" if kind in _LABELS else "text"] = data.decode().strip()
            except ValueError as error:
                note(f"a {kind[1:]} that cannot be read", f"{member.name}: {error}")

    def _add_json(self, cells: dict[str, Cell], data: bytes) -> None:
        for name, value in object_at(parse_json(data)).items():
            if isinstance(value, (str, int, float)) or value is None:
                cells.setdefault(name, value)


def _has_dotted_keys(first: list[TarMember]) -> bool:
    """Whether keys contain dots: cut at the first one, some would have several pictures."""
    pictures = [PurePosixPath(m.name) for m in first]
    pictures = [name for name in pictures if name.suffix.lower() in IMAGE_SUFFIXES]
    keys = [(name.parent, name.name.partition(".")[0]) for name in pictures]
    return len(set(keys)) < len(keys)
