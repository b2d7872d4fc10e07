"""Runs that differ in the loss only."""

from __future__ import annotations

import itertools
import shlex

from fuse.evidence.compare import RunPredictions, compare, share
from fuse.figures.study import ENSEMBLE
from mmsa_cache.errors import ModelError
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.runs.record import RunRecord

from ..predict.compare import check_same_split
from .sections import Against

LOSS_FIELDS = frozenset(
    {
        "loss",
        "alpha",
        "beta",
        "statistics",
        "margin",
        "gamma",
        "label_smoothing",
        "tau",
        "balance",
    }
)
"""Fields of a setting that only say what is minimised."""


def losses(record: RunRecord) -> list[str]:
    """Name of the loss of each setting of a run."""
    return [str(model.setting.get("loss")) for model in record.models]


def other_differences(first: RunRecord, second: RunRecord) -> list[str]:
    """Names of what two runs differ in besides the loss."""
    one, two = (
        {**record.protocol.model_dump(), "averaged": record.averaged}
        | {"refit": record.refit, "origin": record.origin}
        for record in (first, second)
    )
    found = [key for key in one if one[key] != two[key]]
    if len(first.models) != len(second.models):
        return [*found, "number of settings"]
    fields = {
        key
        for a, b in zip(first.models, second.models, strict=True)
        for key in (a.setting.keys() | b.setting.keys()) - LOSS_FIELDS
        if a.setting.get(key) != b.setting.get(key)
    }
    return [*found, *sorted(fields)]


def is_rival(own: RunRecord, other: RunRecord) -> bool:
    """Whether cross-entropy is the loss of one run and another loss that of the other, and nothing
    else differs."""
    pairs = list(zip(losses(own), losses(other), strict=False))
    differing = [(a == "ce") != (b == "ce") for a, b in pairs if a != b]
    return bool(differing) and all(differing) and not other_differences(own, other)


def latest_rival(run: RunFolder) -> RunFolder | None:
    """The latest run here that differs in the loss only, cross-entropy on one side."""
    rivals = []
    for other in RunFolder.all():
        try:
            if other.path.resolve() != run.path.resolve() and is_rival(run.record, other.record):
                rivals.append(other)
        except ModelError:  # damaged, or of another version: not a rival
            continue
    return max(rivals, key=RunFolder.trained_at, default=None)


def against(run: RunFolder, name: str, rival: RunFolder | None) -> Against:
    """What the section on the loss says.

    Args:
        run: The run of the report.
        name: Its name.
        rival: The run to compare with.
    """
    own = losses(run.record)
    if rival is not None:
        check_same_split([name, rival.name], [run, rival])
    if rival is None:
        other = "acb" if set(own) == {"ce"} else "ce"
        return Against(
            f"No run here differs from this one ({', '.join(own)}) in nothing but the loss, so its "
            f"recall is compared with none. This makes one with {other}; mmsa report {name} then "
            "shows both:",
            command_for(run, name, other),
        )
    runs = [(name, run), (rival.name, rival)]
    runs.sort(key=lambda named: "ce" not in losses(named[1].record))
    judged = [
        RunPredictions(
            f"{title} ({', '.join(dict.fromkeys(losses(of.record)))})",
            of.record.classes,
            of.predictions,
        )
        for title, of in runs
    ]
    odd = other_differences(run.record, rival.record)
    if odd:
        said = (
            f"Against the run {rival.name}, which was asked for. The two differ in more "
            f"than the loss ({', '.join(odd)}), so what is seen is not the loss’s doing alone."
        )
    else:
        said = (
            f"Against the run {rival.name}, which differs from this one in nothing but "
            f"the loss: {', '.join(own)} here, {', '.join(losses(rival.record))} there."
        )
    return Against(said, compared=compare(share(judged)))


def command_for(run: RunFolder, name: str, loss: str) -> str:
    """The run's own command with another loss; a trial it chose is named."""
    try:
        words = shlex.split(run.command)
    except (ModelError, ValueError):
        words = []
    if words[:2] != ["mmsa", "train"]:
        return f"mmsa train … --set loss={loss} --name {name}-{loss}"
    trials = iter(run.record.studies)
    for place, word in enumerate(words[:-1]):
        source = next(trials, None) if word == "--study" else None
        if source and source.trial is not None and source.how != ENSEMBLE:
            words[place + 1] = f"{source.name}:{source.trial}"
    words = [word for word in words if word != "--json"]
    pairs = enumerate(itertools.pairwise(words))
    replaced = [p for p, (a, b) in pairs if a == "--name" or (a == "--set" and b[:5] == "loss=")]
    for place in reversed(replaced):
        del words[place : place + 2]
    return shlex.join([*words, "--set", f"loss={loss}", "--name", f"{name}-{loss}"])
