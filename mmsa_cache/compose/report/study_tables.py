"""The tables of the studies on a run's page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fuse.figures.study import PickedEnsemble

from .cells import INTERVAL, as_loss
from .sections import METRICS, StudySection
from .tables import SIGNED, ReportTable


def ensemble_tables(ensembles: Sequence[PickedEnsemble]) -> Iterator[ReportTable]:
    """The members of ensembles, and the scores of these and of the best single trials."""
    for number, picked in enumerate(ensembles, start=1):
        name = f"ensemble-{number}"
        part = f" of outer part {picked.part}" if picked.part else ""
        yield ReportTable(
            name,
            f"Members{part}.",
            ["Trial", "Weight", "Inner score"],
            [[f"{m.study}:{m.trial}", m.weight, m.score] for m in picked.members],
            {"Weight": ".2f"},
        )
        yield ReportTable(
            f"{name}-gain",
            f"The ensemble and the best single trial{part}, each picked and calibrated on four "
            "fifths of the rows and scored on the others; the interval resamples duplicate posts "
            "together.",
            ["Figure", "Single", "Ensemble", f"{INTERVAL} of the difference"],
            [
                [
                    METRICS[metric],
                    *(as_loss(v, metric) for v in (gain.single, gain.ensemble, gain.interval)),
                ]
                for metric, gain in picked.gain.items()
            ],
            {f"{INTERVAL} of the difference": SIGNED},
        )


def study_tables(sections: Sequence[StudySection]) -> Iterator[ReportTable]:
    """The numbers of the charts of studies."""
    for number, section in enumerate(sections, start=1):
        yield from _study_tables(f"study-{number}", section)


def _study_tables(name: str, section: StudySection) -> Iterator[ReportTable]:
    study = section.study
    yield ReportTable(
        f"{name}-trials",
        f"Trials of the study {study.name}; the score of one that was given up is its last.",
        ["Trial", "State", "Score"],
        [[trial.number, trial.state, trial.score] for trial in study.trials],
    )
    if study.importance:
        yield ReportTable(
            f"{name}-importances",
            "Importance of the parameters over resampled trials.",
            ["Parameter", "Median", "5 %", "95 %", "Trials", "Given up"],
            [
                [row.parameter, row.median, row.low, row.high, row.trials, row.pruned]
                for row in study.importance
            ],
        )
    if study.by_fusion:
        yield ReportTable(
            f"{name}-fusions",
            "The best complete trial of each fusion.",
            ["Fusion", "Score", "Trial", "Complete", "Finished"],
            [
                [str(row.value), row.score, row.trial, row.complete, row.trials]
                for row in study.by_fusion
            ],
        )
    if surface := section.surface:
        yield ReportTable(
            f"{name}-surface",
            "Complete trials by the weights of the adaptive loss.",
            ["α", "β", "Mean score", "Best score", "Trials"],
            [
                [alpha, beta, cell.mean, cell.best, cell.trials]
                for beta, row in zip(surface.betas, surface.cells, strict=True)
                for alpha, cell in zip(surface.alphas, row, strict=True)
                if cell
            ],
        )
