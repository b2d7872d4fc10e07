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

    def remark(self, what: str, example: str) -> None:
        """Adds what is no problem; with an example it is counted."""
        _count(self._remarks.setdefault(_cut(what), _Cause()), 0, _cut(example))

    def problems(self) -> list[str]:
        """A line a cause: the row's own problem where it is one, else a count and the first."""
        lines = []
        for (file, cause), found in sorted(self._problems.items(), key=lambda item: _line(item[1])):
            line, detail = found.first[0]
            if found.count == 1:
                lines.append(f"{file}:{line}: {detail or cause}" if line else f"{file}: {cause}")
                continue
            more = "" if found.count == len(found.first) else "; …" if detail else ", …"
            if detail:
                own = [detail.removeprefix(cause).lstrip(",: ") for _, detail in found.first]
                places = [f"line {line}: " if line else "" for line, _ in found.first]
                rows = "; ".join(map("".join, zip(places, own, strict=True)))
            else:
                rows = f"lines {', '.join(str(line) for line, _ in found.first)}"
            shown = f" ({rows}{more})" if detail or line else ""
            lines.append(f"{file}: {found.count} rows: {cause}{shown}")
        return lines

    def notes(self) -> list[str]:
        """A line a remark, with a count and the first examples where there are any."""
        lines = []
        for what, found in self._remarks.items():
            examples = ", ".join(example for _, example in found.first if example)
            more = ", …" if found.count > len(found.first) else ""
            lines.append(f"{found.count} {what}: {examples}{more}" if examples else what)
        return lines


def _count(found: _Cause, line: int, detail: str) -> None:
    found.count += 1
    if len(found.first) < _SHOWN and (line, detail) not in found.first:
        found.first.append((line, detail))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _line(found: _Cause) -> int:
    return found.first[0][0]
