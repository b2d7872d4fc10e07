"""Problems and remarks about label files, summarised by cause."""

from __future__ import annotations

from dataclasses import dataclass, field

_SHOWN = 3
"""Rows that are named for each cause."""
_MOST_CAUSES = 50
"""Causes that are distinguished; a broken file must not fill the memory."""
_OTHERS = "other problems"
_MOST_CHARACTERS = 1000
"""Most characters of a problem, which may quote a line of a megabyte."""


@dataclass(slots=True)
class _Cause:
    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)
    """Line and detail of the first rows."""


@dataclass(slots=True)
class Findings:
    """Problems and remarks by cause."""

    file: str = ""
    """Name of the file being read."""
    _problems: dict[tuple[str, str], _Cause] = field(default_factory=dict)
    _remarks: dict[str, _Cause] = field(default_factory=dict)

    def clear(self, file: str) -> None:
        """Removes all findings and starts with a file."""
        self.file = file
        self._problems.clear()
        self._remarks.clear()

    def add_problem(self, line: int, cause: str, detail: str) -> None:
        """Adds a problem of a row; see `mmsa_cache.data.tables.Note`."""
        cause, detail = _cut(cause), _cut(detail)
        key = (self.file, cause)
        if key not in self._problems and len(self._problems) >= _MOST_CAUSES:
            key, detail = (self.file, _OTHERS), detail or cause
        _add(self._problems.setdefault(key, _Cause()), line, detail)

    def add_remark(self, remark: str, example: str) -> None:
        """Adds a remark, which is no problem; remarks with examples are counted."""
        _add(self._remarks.setdefault(_cut(remark), _Cause()), 0, _cut(example))

    def problems(self) -> list[str]:
        """One line per cause: the problem of a single row, or a count and the first rows."""
        lines = []
        by_line = sorted(self._problems.items(), key=lambda problem: problem[1].first[0][0])
        for (file, name), cause in by_line:
            line, detail = cause.first[0]
            if cause.count == 1:
                lines.append(f"{file}:{line}: {detail or name}" if line else f"{file}: {name}")
                continue
            ellipsis = "" if cause.count == len(cause.first) else "; …" if detail else ", …"
            if detail:
                details = [detail.removeprefix(name).lstrip(",: ") for _, detail in cause.first]
                prefixes = [f"line {line}: " if line else "" for line, _ in cause.first]
                rows = "; ".join(map("".join, zip(prefixes, details, strict=True)))
            else:
                rows = f"lines {', '.join(str(line) for line, _ in cause.first)}"
            shown = f" ({rows}{ellipsis})" if detail or line else ""
            lines.append(f"{file}: {cause.count} rows: {name}{shown}")
        return lines

    def notes(self) -> list[str]:
        """One line per remark, with a count and the first examples if there are any."""
        lines = []
        for remark, cause in self._remarks.items():
            examples = ", ".join(example for _, example in cause.first if example)
            ellipsis = ", …" if cause.count > len(cause.first) else ""
            lines.append(f"{cause.count} {remark}: {examples}{ellipsis}" if examples else remark)
        return lines


def _add(cause: _Cause, line: int, detail: str) -> None:
    cause.count += 1
    if len(cause.first) < _SHOWN and (line, detail) not in cause.first:
        cause.first.append((line, detail))


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
