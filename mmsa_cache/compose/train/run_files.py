"""The files of a run: its settings, its figures, its model and its page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save

from fuse.figures.predictions import Predictions
from fuse.figures.records import EpochRecord
from fuse.figures.study import Value
from fuse.search.snapshot import take_snapshot
from fuse.training.final import Trained
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.errors import MmsaError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.files.disk import write_atomically
from mmsa_cache.runs.folder import MODEL_FILE, RunFolder
from mmsa_cache.runs.json_lines import JsonLines
from mmsa_cache.runs.record import Environment, RunIdentity, RunRecord
from mmsa_cache.runs.tracking import flatten_scalars
from mmsa_cache.validation import validate

from ..predict.run_settings import portable_path
from ..report.report import PAGE, compose_page
from ..report.rivals import latest_rival
from ..search.studies import studies_database
from ..session.path_policy import ENCODER_PATHS
from ..session.session import Session

METRICS = "metrics.jsonl"


def write_run(
    run: RunFolder,
    name: str,
    record: RunRecord,
    trained: Trained,
    session: Session,
    bank: FeatureBank,
    command: str,
) -> None:
    """Writes every file of a run."""
    # Written again: stacked members and resumed runs record epochs in another order.
    lines = JsonLines(run.path / METRICS, fresh=True)
    fold_members = {member.member for member in trained.figures.members}
    for fit in trained.fits:
        for epoch in fit.history:
            append_epoch(lines, epoch, of_fold=epoch.member in fold_members)
    lines.append("final", figures=flatten_scalars(trained.figures.as_json()))
    write_atomically(run.path / MODEL_FILE, save(trained.ensemble.tensors()))
    run.write(
        record,
        trained.figures,
        Environment.here(str(bank.labels.device)),
        [
            take_snapshot(source.name, source.trial, studies_database(session.settings))
            for source in record.studies
            if source.trial is not None
        ],
        Predictions(
            [bank.guids[row] for row in trained.outer.tolist()],
            bank.labels.cpu().numpy()[trained.outer],
            trained.predicted[record.decide],
            trained.probabilities,
            session.groups(record.protocol.split)[trained.outer],
            trained.predicted,
        ),
        command,
    )
    try:
        page = compose_page(run, name, session, trained.ensemble, bank, latest_rival(run))
    except (MmsaError, MemoryError, OSError):  # the same command continues from here
        raise
    except Exception as error:  # a mistake of ours must not cost what was trained
        say(f"Note: the report cannot be made ({type(error).__name__}: {error}).")
        return
    write_atomically(run.path / PAGE, page.html.encode())


def append_epoch(lines: JsonLines, record: EpochRecord, *, of_fold: bool) -> None:
    """Writes an epoch as ``epoch``, ``calibration`` or ``refit``.

    Args:
        lines: The file.
        record: The epoch.
        of_fold: Whether its member belongs to a fold; the others only calibrate, or learn from all
            development rows.
    """
    other = "refit" if record.macro_f1 is None else "calibration"
    lines.append("epoch" if of_fold else other, **record.as_json())


def tracker_parameters(identity: RunIdentity, encoders: Mapping[str, str]) -> dict[str, Value]:
    """Plain values of a run for trackers; those of a second setting as ``2.KEY``.

    Args:
        identity: What is trained.
        encoders: Names of the encoders by modality.
    """
    values: dict[str, Value] = {"averaged": identity.averaged, "refit": identity.refit}
    values |= identity.protocol.model_dump(include={"outer", "folds", "seeds", "seed"})
    values |= {f"{modality}_encoder": label for modality, label in encoders.items()}
    for number, model in enumerate(identity.models, start=1):
        prefix = f"{number}." if number > 1 else ""
        values |= {f"{prefix}{key}": value for key, value in model.setting.items()}
    return values


def portable_settings(settings: Settings, classes: tuple[str, ...], run: Path) -> Settings:
    """Settings as a run keeps them: paths inside the working folder are relative to the run.

    Raises:
        SettingsError: They could not be read again.
    """
    root = settings.data.root
    data = {"root": None if root is None else portable_path(root, run), "classes": classes}
    cache = {"dir": portable_path(settings.cache.dir, run)}
    changes: dict[str, Mapping[str, object]] = {"data": data, "cache": cache}
    for section, key in ENCODER_PATHS:
        value = getattr(getattr(settings, section), key)
        if value is not None and Path(value).is_absolute():
            changes[section] = {key: str(portable_path(Path(value), run))}
    portable = settings.model_copy(
        update={
            section: getattr(settings, section).model_copy(update=values)
            for section, values in changes.items()
        }
    )
    message = "A run with these settings could not be read again:"
    validate(Settings, portable.model_dump(mode="json"), message)
    return portable
