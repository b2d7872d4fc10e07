"""Study files: finds and reads them, and reports all mistakes at once."""

from __future__ import annotations

from graphlib import CycleError
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, ValidationInfo

from fuse.figures.records import Metric
from fuse.figures.study import Value
from fuse.setting import DEFAULTS, value_problem
from mmsa_cache.config.toml_file import read_toml
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.errors import SettingsError
from mmsa_cache.files.paths import shipped_studies
from mmsa_cache.names import suggest_or_list, unknown_name
from mmsa_cache.validation import Table, validate

from .pruning import PruningRule
from .study import Choice, RangeChoice, Sampler, StudyConfig

_HOW = "write a list, { values = […], when = { fusion = […] } } or { low = …, high = … }"
_CHOICE: TypeAdapter[Any] = TypeAdapter(Choice)


def _pair_keys(table: Any) -> Any:
    """Pairs each value with its key, which pydantic does not pass to the validator of a value."""
    return {key: (key, value) for key, value in table.items()} if isinstance(table, dict) else table


def _check_value(item: tuple[str, Value]) -> Value:
    key, value = item
    problem = _key_problem(key) or value_problem(key, value)
    if problem:
        raise ValueError(problem)
    return value


def _check_choice(item: tuple[str, Any], info: ValidationInfo) -> Any:
    key, entry = item
    problems = _choice_problems(key, entry)
    conditional = isinstance(entry, dict) and "when" in entry
    if info.context and key in info.context["fixed"] and not conditional:
        problems.insert(0, "stands in fixed too")
    if problems:
        raise ValueError("; ".join(problems))
    return entry


class _Protocol(Table):
    """The folds of trials, and the rows that judge the selected one."""

    outer: Literal["val", "report", "report-parity", "grouped"] = "report"
    folds: int = Field(default=3, ge=2, strict=True)
    seeds: int = Field(default=1, ge=1, strict=True)
    metric: Metric = "macro_f1"


_Fixed = Annotated[
    dict[str, Annotated[Value, BeforeValidator(_check_value)]], BeforeValidator(_pair_keys)
]


class _StudyFile(Table):
    protocol: _Protocol = _Protocol()
    sampler: Sampler = Sampler()
    pruner: PruningRule = PruningRule()
    fixed: _Fixed = Field(default_factory=dict)
    space: Annotated[
        dict[str, Annotated[Choice, BeforeValidator(_check_choice)]], BeforeValidator(_pair_keys)
    ] = Field(default_factory=dict)
    queue: list[_Fixed] = Field(default_factory=list, max_length=100)


def known_studies() -> dict[str, Path]:
    """Study files by name. A file of ``./studies`` hides a shipped one of the same name."""
    folders = (shipped_studies(), Path("studies"))
    paths = {path.stem: path for folder in folders for path in folder.glob("*.toml")}
    return dict(sorted(paths.items()))


def find_study(name: str) -> Path:
    """Finds a study file in ``./studies``, then among the shipped ones.

    Raises:
        SettingsError: There is none; lists those that exist.
    """
    studies = known_studies()
    if name not in studies:
        raise unknown_name("There is no study", name, studies)
    return studies[name]


def read_study(path: Path, seed: int = 47) -> StudyConfig:
    """Reads a study file.

    Args:
        path: The file.
        seed: Seed of splits, sampler and trainings, which is not in the file.

    Raises:
        SettingsError: Lists all mistakes, each with its ``table.key``.
    """
    try:
        raw = read_toml(path)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    fixed = raw.get("fixed")
    context = {"fixed": fixed if isinstance(fixed, dict) else {}}
    message = f"{path} is not a right study file."
    file = validate(_StudyFile, raw, message, "Correct them all.", context=context)
    protocol = file.protocol.model_dump(exclude={"metric"})
    study = StudyConfig(
        name=path.stem,
        protocol=Protocol(**protocol, seed=seed),
        metric=file.protocol.metric,
        sampler=file.sampler,
        pruner=file.pruner,
        fixed=file.fixed,
        space=file.space,
        queue=file.queue,
    )
    try:
        study.order()
        study.queued_settings()
    except CycleError as error:
        ring = " → ".join(error.args[1])
        problem = f"space: the conditions of {ring} depend on each other"
        raise SettingsError(message, "Correct them all.", [problem]) from None
    return study


def _key_problem(key: str) -> str | None:
    if key == "metric":
        return "the metric stands in protocol"
    return None if key in DEFAULTS else f"unknown parameter{suggest_or_list(key, DEFAULTS)}"


def _choice_problems(key: str, entry: Any) -> list[str]:
    """Mistakes in a parameter's entry of the space."""
    problem = _key_problem(key)
    if problem:
        return [problem]
    if isinstance(entry, dict) and "low" in entry and type(DEFAULTS[key]) not in (int, float):
        return ["has no range, write a list"]
    try:
        choice: Choice = _CHOICE.validate_python(entry)
    except ValidationError:
        return [_HOW]
    problems = [p for value in choice.candidates() if (p := value_problem(key, value))]
    if isinstance(choice, RangeChoice) and not problems:
        problems = _range_problems(key, choice)
    for other, values in choice.when.items():
        if other not in DEFAULTS or other == key:
            problems.append(f"when.{other}: unknown parameter{suggest_or_list(other, DEFAULTS)}")
            continue
        problems += [f"when.{other}: {p}" for value in values if (p := value_problem(other, value))]
    return problems


def _range_problems(key: str, choice: RangeChoice) -> list[str]:
    problems = []
    if choice.low > choice.high:
        problems.append(f"low {choice.low} is above high {choice.high}")
    if choice.log and choice.low <= 0:
        problems.append("log needs a low above 0")
    step = choice.step
    if step is not None and (choice.log or value_problem(key, step) or step <= 0):
        problems.append("step needs a number above 0, and no log")
    return problems
