"""What ``--help`` shows, and that what messages name exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from mmsa_cache.cli.group import VisibleGroup
from mmsa_cache.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(p for name in ("mmsa_cache", "extract", "fuse") for p in (ROOT / name).rglob("*"))
PAGES = [ROOT / "README.md", *ROOT.glob("[!.]*/README.md")]
OTHER_PROGRAMS = {"--force-reinstall", "--local-dir", "--query-gpu", "--head", "--gcs-address"}
"""Flags of pip, of hf, of nvidia-smi and of ray."""


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, (*words, name))


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_every_option_word_for_word(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    result = CliRunner().invoke(app, [*words, "--help"])
    shown = "".join(result.output.split())
    texts = [
        (command.help or "").replace("\b", ""),
        *(getattr(param, "help", None) or "" for param in command.params),
    ]
    assert [text for text in texts if "".join(text.split()) not in shown] == []


def strings(path: Path) -> Iterator[str]:
    """The texts of a source file: string literals, or a template's lines."""
    if path.suffix == ".j2":
        yield path.read_text(encoding="utf-8")
    elif path.suffix == ".py":
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_flag_that_is_named_exists() -> None:
    known = {
        flag
        for command in COMMANDS.values()
        for param in command.params
        for flag in (*param.opts, *param.secondary_opts)
    }
    named = {
        (flag, str(path.relative_to(ROOT)))
        for path in SOURCES
        for text in strings(path)
        # "--{" ends in a variable; custom properties of style sheets are no flags.
        for flag in re.findall(r"(?<![\w(-])--(?:[a-z][a-z0-9-]*\b(?!:)|$)", text)
    }
    ghosts = sorted(pair for pair in named if pair[0] not in known | OTHER_PROGRAMS | {"--help"})
    assert ghosts == []


def test_every_section_that_is_named_exists() -> None:
    headings = {
        line.lstrip("# ").strip()
        for page in PAGES
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    }
    named = {
        section
        for path in SOURCES
        for text in strings(path)
        for section in re.findall(r"section '([^']+)'", text)
    }
    assert named <= headings


def test_ctrl_c_outside_a_verb_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*about: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(VisibleGroup, "invoke", interrupted)
    assert CliRunner().invoke(app, ["predict"]).exit_code == 130


def test_no_line_of_a_verb_is_cut() -> None:
    for words in ([], ["runs"], ["cache"], ["bench"], ["ablate"]):
        shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "40"}).output
        assert "..." not in shown.partition("Commands:")[2]


def commands_named(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Commands in a text: words that may be verbs, and flags up to the end of the sentence, of the
    line, or to the next command. Words after mmsa are verbs where it is told to run, or quoted."""
    told = r"(?:(?:[Rr]un|→|:|`|\$) ?|^)mmsa((?: [a-z][a-z-]*)+)"
    for found in re.finditer(told + r"(?=((?:(?!\bmmsa\b)[^.;|`\n)])*))", text, re.MULTILINE):
        yield found[1].split(), re.findall(r"(?<![\w(-])--[a-z][a-z0-9-]*\b", found[2])


def unknown_in(text: str) -> list[str]:
    """Verbs and flags of verbs that a text names and that do not exist."""
    wrong = []
    for words, flags in commands_named(text):
        named = tuple(words[:1])
        if named == ("classes",):  # the example of how to add a verb
            continue
        if named not in COMMANDS:
            wrong.append(f"mmsa {' '.join(words)}")
            continue
        if tuple(words[:2]) in COMMANDS:
            named = tuple(words[:2])
        known = {flag for param in COMMANDS[named].params for flag in param.opts}
        wrong += [
            f"mmsa {' '.join(named)} {flag}"
            for flag in flags
            if flag not in known | {"--help"} and not flag.startswith("--no-")
        ]
    return wrong


def test_verbs_in_messages_have_the_flags_that_are_named_with_them() -> None:
    assert unknown_in("Run mmsa serach --all, or run mmsa extract --trials 3.") == [
        "mmsa serach",
        "mmsa extract --trials",
    ]
    texts = [(path, text) for path in SOURCES for text in strings(path)]
    texts += [(page, page.read_text(encoding="utf-8")) for page in PAGES]
    wrong = {
        f"{path.relative_to(ROOT)}: {found}" for path, text in texts for found in unknown_in(text)
    }
    assert wrong == set()
