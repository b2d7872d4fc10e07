"""A study file: search space, fixed values, protocol."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import optuna

from mmsa_cache.errors import SettingsError

from .trainer import METRICS, Setting

# A parameter that matters only for some values of another is asked for only then.
_ONLY_FOR: dict[str, tuple[str, tuple[Any, ...]]] = {
    "image_dim": ("fusion", ("concat", "attention_concat")),
    "layers": ("fusion", ("encoder",)),
    "alpha": ("loss", ("acb",)),
    "statistics": ("loss", ("acb",)),
    "margin": ("loss", ("acb",)),
    "pairing": ("variants", (True,)),
}
_PROTOCOL = {"outer": "report", "folds": 3, "metric": "macro_f1"}


@dataclass(frozen=True, slots=True)
class Study:
    """A search as its file describes it."""

    name: str
    outer: str
    folds: int
    metric: str
    fixed: dict[str, Any]
    space: dict[str, Any]

    def suggest(self, trial: optuna.Trial) -> Setting:
        """Draws one setting; beta is 1 − alpha unless the study names it."""
        values: dict[str, Any] = dict(self.fixed)
        for key in sorted(self.space, key=lambda k: k in _ONLY_FOR):
            if key in _ONLY_FOR:
                other, wanted = _ONLY_FOR[key]
                if values.get(other, getattr(Setting(), other)) not in wanted:
                    continue
            choice = self.space[key]
            if isinstance(choice, list):
                values[key] = trial.suggest_categorical(key, choice)
            else:
                draw = trial.suggest_int if _is_int(choice) else trial.suggest_float
                values[key] = draw(key, choice["low"], choice["high"], log=choice.get("log", False))
        fusion = values.get("fusion", Setting().fusion)
        if fusion not in _ONLY_FOR["image_dim"][1]:
            values["image_dim"] = values.get("text_dim", Setting().text_dim)
        if "alpha" in values and "beta" not in values:
            values["beta"] = 1.0 - values["alpha"]
        return Setting(**{**values, "metric": self.metric})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _is_int(choice: dict[str, Any]) -> bool:
    return isinstance(choice["low"], int) and isinstance(choice["high"], int)


def find_study(name: str) -> Path:
    """Looks in ``./studies``, then among the studies that come with mmsa.

    Raises:
        SettingsError: Lists the studies there are.
    """
    import sys

    folders = [
        Path("studies"),
        Path(__file__).resolve().parent.parent / "studies",
        Path(sys.prefix) / "share/mmsa/studies",
    ]
    for folder in folders:
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.toml")})
    raise SettingsError(f"There is no study {name!r}.", f"Known: {', '.join(known)}.")


def read_study(path: Path) -> Study:
    """Reads a study file.

    Raises:
        SettingsError: With every mistake at once.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    known = {field.name: field.type for field in fields(Setting)} | {"metric": "str"}
    problems = [f"{key}: unknown table" for key in raw if key not in ("protocol", "fixed", "space")]
    protocol = {**_PROTOCOL, **raw.get("protocol", {})}
    problems += [f"protocol.{key}: unknown key" for key in protocol if key not in _PROTOCOL]
    if protocol["metric"] not in METRICS:
        problems.append(f"protocol.metric: {protocol['metric']!r}, valid: {', '.join(METRICS)}")
    if not isinstance(protocol["folds"], int) or protocol["folds"] < 2:
        problems.append(f"protocol.folds: {protocol['folds']!r}, a whole number from 2 is expected")
    fixed, space = raw.get("fixed", {}), raw.get("space", {})
    for table, values in (("fixed", fixed), ("space", space)):
        problems += [f"{table}.{key}: unknown parameter" for key in values if key not in known]
    problems += [f"{key}: stands in both fixed and space" for key in fixed if key in space]
    for key, choice in space.items():
        ranged = isinstance(choice, dict) and {"low", "high"} <= choice.keys() <= {
            "low",
            "high",
            "log",
        }
        if not ranged and not (isinstance(choice, list) and choice):
            problems.append(f"space.{key}: write a list, or {{ low = …, high = …, log = true }}")
    if problems:
        raise SettingsError(f"{len(problems)} mistake(s) in {path}.", "Correct them all.", problems)
    return Study(path.stem, protocol["outer"], protocol["folds"], protocol["metric"], fixed, space)
