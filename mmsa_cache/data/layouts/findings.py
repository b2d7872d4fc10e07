"""What is found out while label files are read: a line a cause, whatever the number of rows."""

from __future__ import annotations

from dataclasses import dataclass, field

_SHOWN = 3
"""Rows of a cause that are named."""
_CAUSES = 50
"""Causes that are told apart; a broken file must not fill the memory."""
_OTHERS = "other problems"
_LONGEST = 1000
"""Characters of a row's problem; it quotes what may be a line of a megabyte."""


@dataclass(slots=True)
class _Cause:
    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)
    """Lines of the first rows, and what each has."""


@dataclass(slots=True)
class Findings:
    """Problems and remarks by their causes."""

    file: str = ""
    """Name of the file that is being read."""
    _problems: dict[tuple[str, str], _Cause] = field(default_factory=dict)
    _remarks: dict[str, _Cause] = field(default_factory=dict)

    def clear(self, file: str) -> None:
        """Forgets everything; the next file to be read is this one."""
        self.file = file
        self._problems.clear()
        self._remarks.clear()

    def problem(self, line: int, cause: str, detail: str) -> None:
        """Adds a problem of a row; see `mmsa_cache.data.tables.Note`."""
        cause, detail = _cut(cause), _cut(detail)
        key = (self.file, cause)
        if key not in self._problems and len(self._problems) >= _CAUSES:
            key, detail = (self.file, _OTHERS), detail or cause
        _count(self._problems.setdefault(key, _Cause()), line, detail)

    def remark(self, remark: str, example: str) -> None:
        """Adds what is no problem; with an example it is counted."""
        _count(self._remarks.setdefault(_cut(remark), _Cause()), 0, _cut(example))

    def problems(self) -> list[str]:
        """A line a cause: the row's own problem where it is one, else a count and the first."""
        lines = []
        for (file, name), cause in sorted(self._problems.items(), key=lambda item: _line(item[1])):
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
        """A line a remark, with a count and the first examples where there are any."""
        lines = []
        for remark, cause in self._remarks.items():
            examples = ", ".join(example for _, example in cause.first if example)
            ellipsis = ", …" if cause.count > len(cause.first) else ""
            lines.append(f"{cause.count} {remark}: {examples}{ellipsis}" if examples else remark)
        return lines


def _count(cause: _Cause, line: int, detail: str) -> None:
    cause.count += 1
    if len(cause.first) < _SHOWN and (line, detail) not in cause.first:
        cause.first.append((line, detail))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _line(cause: _Cause) -> int:
    return cause.first[0][0]
