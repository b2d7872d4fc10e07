"""Rivals of a run: runs that differ from it in the loss only."""

from __future__ import annotations

import itertools
import shlex

from fuse.evidence.compare import RunPredictions, compare_rows, pair_rows
from fuse.figures.study import ENSEMBLE
from mmsa_cache.errors import ModelError
from mmsa_cache.runs.folder import RunFolder
from mmsa_cache.runs.record import RunRecord

from ..predict.compare import check_same_split
from .sections import LossSection

LOSS_FIELDS = frozenset(
    ("loss", "alpha", "beta", "statistics", "margin", "gamma", "label_smoothing", "tau", "balance")
)
"""Fields of a setting that define the loss."""


def losses(record: RunRecord) -> list[str]:
    """The loss of each setting of a run."""
    return [str(model.setting.get("loss")) for model in record.models]


def other_differences(first: RunRecord, second: RunRecord) -> list[str]:
    """Names of the differences between two runs, besides the loss."""
    one, two = (
        {**record.protocol.model_dump(), "averaged": record.averaged}
        | {"refit": record.refit, "origin": record.origin}
        for record in (first, second)
    )
    differing = [key for key in one if one[key] != two[key]]
    if len(first.models) != len(second.models):
        return [*differing, "number of settings"]
    fields = {
        key
        for a, b in zip(first.models, second.models, strict=True)
        for key in (a.setting.keys() | b.setting.keys()) - LOSS_FIELDS
        if a.setting.get(key) != b.setting.get(key)
    }
    return [*differing, *sorted(fields)]


def is_rival(own: RunRecord, other: RunRecord) -> bool:
    """Whether two runs differ in the loss only, with cross-entropy as the loss of exactly one."""
    pairs = list(zip(losses(own), losses(other), strict=False))
    with_ce = [(a == "ce") != (b == "ce") for a, b in pairs if a != b]
    return bool(with_ce) and all(with_ce) and not other_differences(own, other)


def latest_rival(run: RunFolder) -> RunFolder | None:
    """The latest run in the working folder for which `is_rival` holds."""
    rivals = []
    for other in RunFolder.all():
        try:
            if other.path.resolve() != run.path.resolve() and is_rival(run.record, other.record):
                rivals.append(other)
        except ModelError:  # damaged, or of another version: not a rival
            continue
    return max(rivals, key=RunFolder.trained_at, default=None)


def loss_section(run: RunFolder, name: str, rival: RunFolder | None) -> LossSection:
    """The section that compares a run with its rival.

    Args:
        run: The run of the report.
        name: Its name.
        rival: The run to compare with.
    """
    own = losses(run.record)
    if rival is None:
        other = "acb" if set(own) == {"ce"} else "ce"
        return LossSection(
            f"No run here differs from this one ({', '.join(own)}) in nothing but the loss, so its "
            f"recall is compared with none. This makes one with {other}; mmsa report {name} then "
            "shows both:",
            command_for(run, name, other),
        )
    check_same_split([name, rival.name], [run, rival])
    runs = [(name, run), (rival.name, rival)]
    runs.sort(key=lambda named: "ce" not in losses(named[1].record))
    predictions = [
        RunPredictions(
            f"{title} ({', '.join(dict.fromkeys(losses(of.record)))})",
            of.record.classes,
            of.predictions,
        )
        for title, of in runs
    ]
    differences = other_differences(run.record, rival.record)
    if differences:
        note = (
            f"Against the run {rival.name}, which was asked for. The two differ in more than the "
            f"loss ({', '.join(differences)}), so the loss is not the only cause of what is seen."
        )
    else:
        note = (
            f"Against the run {rival.name}, which differs from this one in nothing but "
            f"the loss: {', '.join(own)} here, {', '.join(losses(rival.record))} there."
        )
    return LossSection(note, comparison=compare_rows(pair_rows(predictions)))


def command_for(run: RunFolder, name: str, loss: str) -> str:
    """The run's command with another loss; the trial that it trained is named."""
    try:
        words = shlex.split(run.command)
    except (ModelError, ValueError):
        words = []
    if words[:2] != ["mmsa", "train"]:
        return f"mmsa train … --set loss={loss} --name {name}-{loss}"
    studies = iter(run.record.studies)
    for index, word in enumerate(words[:-1]):
        source = next(studies, None) if word == "--study" else None
        if source and source.trial is not None and source.how != ENSEMBLE:
            words[index + 1] = f"{source.name}:{source.trial}"
    words = [word for word in words if word != "--json"]
    pairs = enumerate(itertools.pairwise(words))
    replaced = [i for i, (a, b) in pairs if a == "--name" or (a == "--set" and b[:5] == "loss=")]
    for index in reversed(replaced):
        del words[index : index + 2]
    return shlex.join([*words, "--set", f"loss={loss}", "--name", f"{name}-{loss}"])
