"""Study files: where they are, and what is wrong with them, all of it at once."""

from __future__ import annotations

import difflib
import sys
from graphlib import CycleError
from pathlib import Path
from typing import Any

from fuse.figures.records import METRICS
from mmsa_cache.config.toml_file import read_toml
from mmsa_cache.errors import SettingsError

from . import pruning
from .space import TYPES, Study, candidates, value_problem

_OUTER = ("report", "report-parity", "grouped")
_SAMPLERS = ("tpe", "random")
_TABLES = ("protocol", "sampler", "pruner", "fixed", "space")
_PROTOCOL: dict[str, Any] = {"outer": "report", "folds": 3, "seeds": 1, "metric": "macro_f1"}
_SAMPLER: dict[str, Any] = {"kind": "tpe", "startup": 20}
_PRUNER: dict[str, Any] = {"kind": "percentile", "keep": 0.5, "startup": 10, "warmup": 3}


def folders() -> list[Path]:
    """Where studies are looked for, the first that has a name wins."""
    return [
        Path("studies"),
        Path(__file__).resolve().parents[2] / "studies",
        Path(sys.prefix) / "share/mmsa/studies",
    ]


def known_studies() -> dict[str, Path]:
    """Every study there is a file of, by name."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def find_study(name: str) -> Path:
    """Looks in ``./studies``, then among the studies that come with mmsa.

    Raises:
        SettingsError: Lists the studies there are.
    """
    known = known_studies()
    if name not in known:
        raise SettingsError(f"There is no study {name!r}.", f"Known: {', '.join(known)}.")
    return known[name]


def read_study(path: Path) -> Study:
    """Reads a study file.

    Raises:
        SettingsError: With every mistake at once, each with its ``table.key``.
    """
    try:
        raw = read_toml(path)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    problems = [f"{key}: unknown table{_near(key, _TABLES)}" for key in raw if key not in _TABLES]
    tables: dict[str, dict[str, Any]] = {}
    for name in _TABLES:
        tables[name] = raw.get(name, {})
        if not isinstance(tables[name], dict):
            problems.append(f"{name}: a table is expected")
            tables[name] = {}
    protocol = _merged("protocol", _PROTOCOL, tables["protocol"], problems)
    sampler = _merged("sampler", _SAMPLER, tables["sampler"], problems)
    pruner = _merged("pruner", _PRUNER, tables["pruner"], problems)
    _among("protocol.metric", protocol["metric"], METRICS, problems)
    _among("protocol.outer", protocol["outer"], _OUTER, problems)
    _among("sampler.kind", sampler["kind"], _SAMPLERS, problems)
    _among("pruner.kind", pruner["kind"], pruning.KINDS, problems)
    _at_least("protocol.folds", protocol["folds"], 2, problems)
    _at_least("protocol.seeds", protocol["seeds"], 1, problems)
    _at_least("sampler.startup", sampler["startup"], 1, problems)
    _at_least("pruner.startup", pruner["startup"], 1, problems)
    _at_least("pruner.warmup", pruner["warmup"], 0, problems)
    keep = pruner["keep"]
    if not (isinstance(keep, int | float) and 0 < keep < 1):
        problems.append(f"pruner.keep: {keep!r}, a share between 0 and 1 is expected")
    problems += _values_problems(tables["fixed"], tables["space"])
    study = Study(
        path.stem,
        sampler=sampler,
        pruner=pruner,
        fixed=tables["fixed"],
        space=tables["space"],
        **protocol,
    )
    if not problems:
        try:
            study.order()
        except CycleError as error:
            ring = " → ".join(error.args[1])
            problems.append(f"space: the conditions of {ring} depend on each other")
    if problems:
        raise SettingsError(f"{len(problems)} mistake(s) in {path}.", "Correct them all.", problems)
    return study


def _values_problems(fixed: dict[str, Any], space: dict[str, Any]) -> list[str]:
    problems = [f"space.{key}: stands in fixed too" for key in fixed if key in space]
    for table, values in (("fixed", fixed), ("space", space)):
        for key, value in values.items():
            place = f"{table}.{key}"
            if key == "metric":
                problems.append(f"{place}: the metric stands in protocol")
            elif key not in TYPES:
                problems.append(f"{place}: unknown parameter{_near(key, TYPES)}")
            elif table == "space":
                problems += [f"{place}: {problem}" for problem in _choice_problems(key, value)]
            elif problem := value_problem(key, value):
                problems.append(f"{place}: {problem}")
    return problems


def _choice_problems(key: str, choice: Any) -> list[str]:
    """Mistakes of one parameter's entry in the space."""
    how = "write a list, { values = […], when = { fusion = […] } } or { low = …, high = … }"
    if isinstance(choice, list):
        entries: set[str] = {"values"}
    elif isinstance(choice, dict):
        entries = set(choice) - {"when"}
    else:
        return [how]
    ranged = {"low", "high"} <= entries <= {"low", "high", "log", "step"}
    if not ranged and entries != {"values"}:
        return [how]
    listed = candidates(choice)
    if not isinstance(listed, list) or not listed:
        return [how]
    problems = [problem for value in listed if (problem := value_problem(key, value))]
    if ranged and not problems:
        problems += _range_problems(key, choice)
    if isinstance(choice, dict) and "when" in choice:
        problems += _when_problems(key, choice["when"])
    return problems


def _range_problems(key: str, choice: dict[str, Any]) -> list[str]:
    log, step = choice.get("log", False), choice.get("step")
    if TYPES[key] not in (int, float):
        return ["has no range, write a list"]
    problems = []
    if choice["low"] > choice["high"]:
        problems.append(f"low {choice['low']} is above high {choice['high']}")
    if not isinstance(log, bool):
        problems.append(f"log = {log!r}, true or false is expected")
    elif log and choice["low"] <= 0:
        problems.append("log needs a low above 0")
    if step is not None and (log or value_problem(key, step) or step <= 0):
        problems.append("step needs a number above 0, and no log")
    return problems


def _when_problems(key: str, when: Any) -> list[str]:
    if not isinstance(when, dict) or not when:
        return ['when: write { fusion = ["encoder"] }']
    problems = []
    for other, values in when.items():
        if other not in TYPES or other == key:
            problems.append(f"when.{other}: unknown parameter{_near(other, TYPES)}")
            continue
        listed = values if isinstance(values, list) else [values]
        problems += [
            f"when.{other}: {problem}"
            for value in listed
            if (problem := value_problem(other, value))
        ]
    return problems


def _merged(
    table: str, defaults: dict[str, Any], given: dict[str, Any], problems: list[str]
) -> dict[str, Any]:
    problems += [
        f"{table}.{key}: unknown key{_near(key, defaults)}" for key in given if key not in defaults
    ]
    return {key: given.get(key, value) for key, value in defaults.items()}


def _among(place: str, value: Any, valid: tuple[str, ...], problems: list[str]) -> None:
    if value not in valid:
        problems.append(f"{place}: {value!r}, valid: {', '.join(valid)}")


def _at_least(place: str, value: Any, least: int, problems: list[str]) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        problems.append(f"{place}: {value!r}, a whole number from {least} is expected")


def _near(key: str, valid: Any) -> str:
    """`` (near: …)``, or all of a short list."""
    names = sorted(valid)
    close = difflib.get_close_matches(key, names, 3, 0.6)
    if close:
        return f" (near: {', '.join(close)})"
    return f" (valid: {', '.join(names)})" if len(names) < 8 else ""
