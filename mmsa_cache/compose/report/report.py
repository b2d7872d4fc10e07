"""``mmsa report``: the page of a run, written again."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fuse.evidence.compare import Judged
from fuse.evidence.versus import is_rival, losses, other_differences, recalls
from fuse.training.ensemble import Ensemble
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data.pairs import Sample
from mmsa_cache.disk import write_atomically
from mmsa_cache.errors import DataError, ModelError, SettingsError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.runs.directory import RUNS, find_run, read_config
from mmsa_cache.runs.predictions import read_predictions

from ..predict import load_run
from ..samples import load_samples
from .attended import explainer
from .gallery import Post
from .page import render
from .run_files import read_run
from .sections import Against

PAGE = "report.html"


def report(
    run: str,
    *,
    against: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Writes a stored run's report again.

    Args:
        run: Name or folder of a run.
        against: Another run, to show what its loss does to the recall of each class; default: the
            latest run here that differs in the loss only.
        data: Where the posts are now; default: where they were.
        out: Where the page goes; default: ``report.html`` of the run.
        device: Where the model runs; default: as it was trained.

    Returns:
        ``run``, ``report`` (path), ``bytes``, ``against`` (run or None) and ``notes``.

    Raises:
        ModelError: A run is missing or damaged, or the two do not go together.
        SettingsError: ``against`` is the run itself.
    """
    folder = find_run(run)
    try:
        model = load_run(run, device, data)
        ensemble, settings = model.ensemble, model.settings
    except ModelError as error:
        say(f"Note: {error.message}")
        ensemble, settings = None, _stored(folder, data)
    try:
        samples = load_samples(settings, "train")
    except (DataError, SettingsError) as error:
        say(f"Note: the posts are not at hand: {error.message}")
        samples = []
    rival = _named(folder, against) if against else _found(folder)
    name = folder.resolve().name
    page = compose(folder, name, samples, ensemble, None, settings, rival).encode()
    target = out or folder / PAGE
    write_atomically(target, page)
    return {
        "run": name,
        "report": str(target),
        "bytes": len(page),
        "against": None if rival is None else rival.resolve().name,
        "notes": read_config(folder).get("notes", []),
    }


def compose(
    folder: Path,
    name: str,
    samples: Sequence[Sample],
    ensemble: Ensemble | None,
    bank: FeatureBank | None,
    settings: Settings,
    rival: Path | None = None,
) -> str:
    """The page of a run directory.

    Args:
        folder: The run.
        name: Its name.
        samples: Its training split.
        ensemble: Its model, or None.
        bank: Features of the samples, where they are open.
        settings: Those it was made under.
        rival: A run to compare with; default: one that differs in the loss only.
    """
    posts = {sample.guid: Post(sample.text, sample.image_path) for sample in samples}
    config = read_config(folder)
    return render(
        read_run(folder),
        posts,
        name,
        against=_against(folder, name, config, rival or _found(folder)),
        explain=explainer(ensemble, settings, samples, config, bank),
    )


def _stored(folder: Path, data: Path | None) -> Settings:
    """The settings of a run whose model cannot be loaded."""
    try:
        raw = read_config(folder)["settings"]
        if data is not None:
            raw["data"]["root"] = str(data)
        return Settings.model_validate(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder / 'config.json'} does not hold a run's settings: {error}",
            "Train the run again.",
        ) from error


def _named(folder: Path, against: str) -> Path:
    rival = find_run(against)
    if rival.resolve() == folder.resolve():
        raise SettingsError("A run cannot be compared with itself.", "Name another --against.")
    return rival


def _found(folder: Path) -> Path | None:
    """The latest run here that differs in the loss only, cross-entropy on one side."""
    try:
        own = read_config(folder)
        rivals = []
        for path in RUNS.glob("[!.]*/config.json"):
            if path.parent.resolve() != folder.resolve() and is_rival(
                own, read_config(path.parent)
            ):
                rivals.append(path)
    except (KeyError, TypeError, ModelError):  # runs of other versions are no rivals
        return None
    return max(rivals, key=lambda path: path.stat().st_mtime).parent if rivals else None


def _against(folder: Path, name: str, config: Mapping[str, Any], rival: Path | None) -> Against:
    """What the section on the loss says."""
    own = losses(config)
    if rival is None:
        other = "acb" if set(own) == {"ce"} else "ce"
        return Against(
            f"No run here differs from this one ({', '.join(own)}) in nothing but the loss, so its "
            f"recall is compared with none. This makes one with {other}; mmsa report {name} then "
            "shows both:",
            _command(folder, name, config, other),
        )
    second = read_config(rival)
    runs = [(name, folder, config), (rival.resolve().name, rival, second)]
    runs.sort(key=lambda run: "ce" not in losses(run[2]))
    judged = [
        Judged(
            f"{title} ({', '.join(dict.fromkeys(losses(of)))})",
            of["classes"],
            read_predictions(path / "predictions.csv", of["classes"]),
        )
        for title, path, of in runs
    ]
    odd = other_differences(config, second)
    if odd:
        said = (
            f"Against the run {rival.resolve().name}, which was asked for. The two differ in more "
            f"than the loss ({', '.join(odd)}), so what is seen is not the loss’s doing alone."
        )
    else:
        said = (
            f"Against the run {rival.resolve().name}, which differs from this one in nothing but "
            f"the loss: {', '.join(own)} here, {', '.join(losses(second))} there."
        )
    return Against(said, recalls=recalls(*judged))


def _command(folder: Path, name: str, config: Mapping[str, Any], loss: str) -> str:
    """The run's own command with another loss; a trial it chose is named."""
    try:
        words = shlex.split((folder / "command.txt").read_text("utf-8"))
    except (OSError, ValueError):
        words = []
    if words[:2] != ["mmsa", "train"]:
        return f"mmsa train … --set loss={loss} --name {name}-{loss}"
    trials = iter(config.get("studies", []))
    for place, word in enumerate(words[:-1]):
        if word == "--study" and (source := next(trials, None)) and source["trial"] is not None:
            words[place + 1] = f"{source['name']}:{source['trial']}"
    words = [word for word in words if word != "--json"]
    pairs = enumerate(itertools.pairwise(words))
    replaced = [p for p, (a, b) in pairs if a == "--name" or (a == "--set" and b[:5] == "loss=")]
    for place in reversed(replaced):
        del words[place : place + 2]
    return shlex.join([*words, "--set", f"loss={loss}", "--name", f"{name}-{loss}"])
