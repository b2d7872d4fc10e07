"""``mmsa search``."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from .config import Settings
from .console import progress
from .pipeline import notes_of
from .splits import duplicate_groups
from .verb_train import labelled


def search(settings: Settings, name: str, trials: int) -> dict[str, Any]:
    """Runs a study; returns its choice and the optimism gap."""
    from fuse import final as finals
    from fuse import search as engine
    from fuse.space import find_study, read_study

    study = read_study(find_study(name))
    samples, bank, origin = labelled(settings)
    groups = duplicate_groups(samples)
    started = time.monotonic()
    done = 0
    with progress(f"study {study.name}", trials, "trials") as advance:

        def on_trial(finished: int, note: str) -> None:
            nonlocal done
            advance(finished - done, note)
            done = finished

        chosen = engine.search(
            study,
            bank,
            groups,
            trials=trials,
            names=origin["classes"],
            seed=settings.seed,
            origin=origin,
            on_trial=on_trial,
        )
    final = finals.train(
        [chosen.setting],
        bank,
        groups,
        outer=study.outer,
        names=origin["classes"],
        seed=settings.seed,
        folds=study.folds,
    )
    outer = final.figures["outer"][study.metric]
    return {
        "study": study.name,
        "trial": chosen.trial,
        "metric": study.metric,
        "inner_score": chosen.score,
        "outer_score": outer,
        "optimism_gap": chosen.score - outer,
        "outer_rows": len(final.outer),
        "seconds": round(time.monotonic() - started, 1),
        "notes": notes_of(settings),
        "setting": asdict(chosen.setting),
    }
