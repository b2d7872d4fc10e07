"""``mmsa extract``: composes data, encoders and the store."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from itertools import chain

from mmsa_cache.config.settings import ALL, CONFIG_NAME, Settings
from mmsa_cache.console import say
from mmsa_cache.names import DEFAULT_ENCODER, SPLITS, check_split, unknown_name
from mmsa_cache.store.writer import FeatureWriter

from ..hub.data_set import fetched
from ..session.completion import use_stored_data_settings
from ..session.path_policy import PathPolicy
from ..session.samples import splits_of
from ..session.store import Store
from .crew import EngineRequest
from .extraction import Extraction, Work
from .lexicon import with_lexicon
from .parts import WHOLE, Portion
from .reading import read_splits
from .target import Target
from .wanted import wanted_features

_HERE = EngineRequest()


@dataclass(frozen=True, slots=True)
class Extracted:
    """The outcome for one encoder and split."""

    name: str
    """Its encoder's name in the settings."""
    split: str
    modality: str
    encoder: str
    directory: str
    samples: int
    rows: int
    """Rows that the split needs, equal inputs counted once."""
    rows_computed: int
    rows_already_there: int
    rows_shared: int
    """Rows that were not computed since their input equals that of another row."""
    bytes: int
    """Of all features of this encoder."""
    seconds: float
    set_aside: int
    """Rows of the split that are left out because of a bad text or picture."""

    @classmethod
    def of(cls, work: Work, part: Portion) -> Extracted:
        """What became of some features."""
        jobs, wanted = work.jobs, work.wanted
        computed = sum(job.computed for job in jobs)
        shared = jobs[0].duplicates if jobs else work.rows.wanted.shared
        there = sum(job.present for job in jobs)
        if part.merges or not jobs:  # parts that had nothing to do count too
            there = len(work.rows) - (shared - work.rows.wanted.shared) - computed
        return cls(
            name=wanted.name,
            split=work.split,
            modality=wanted.encoder.identity.modality,
            encoder=wanted.encoder.identity.label,
            directory=str(work.writer.folder),
            samples=len(wanted.split.samples),
            rows=len(work.rows),
            rows_computed=computed,
            rows_already_there=there,
            rows_shared=shared,
            bytes=work.writer.bytes,
            seconds=round(work.seconds, 2),
            set_aside=wanted.split.about.aside,
        )


def extract_splits(
    settings: Settings,
    split: str,
    encoders: str = DEFAULT_ENCODER,
    part: Portion = WHOLE,
    engine: EngineRequest = _HERE,
) -> list[Extracted]:
    """Extracts what is missing of one split or of all.

    Args:
        settings: The command's settings; what they do not say is as the store was told.
        split: One of `SPLITS`, or ``all``.
        encoders: Names joined by commas, or ``all``; a name may have an encoder of one modality
            only. What two names have in common is extracted once.
        part: The part of the rows to extract.
        engine: The workers; default: this process.

    Returns:
        One record an encoder and split.

    Raises:
        SettingsError: Unknown split or encoder.
        MmsaError: As the data, the encoders and the store raise.
    """
    check_split(split, (*SPLITS, ALL))
    engine = engine.settled(settings)  # before data is read for nothing
    store = Store(settings.cache.dir, renewing=True)
    policy = PathPolicy(settings, store.root)
    settings = use_stored_data_settings(fetched(settings), store, policy, extracting=True)
    names = chosen_encoders(settings, store, encoders)
    splits = read_splits(settings, store, split)
    if split == "train" and not store.split("val") and "val" in splits_of(settings, store):
        say("Note: the data has a split val, which is not extracted: --split val, or all.")
    names = with_lexicon(names, settings, store, splits)
    target = Target(store.root, engine.target)
    wanted = {
        name: list(wanted_features(settings, store, policy, name, splits, here=not engine.target))
        for name in names
    }
    target.write(splits)
    records: list[Extracted] = []
    # The features of a name are written in one run, so that none waits for those before it; those
    # of all names where workers have to be started. Every process takes claims in this order.
    groups = wanted.values() if engine.chosen is None else [list(chain(*wanted.values()))]
    for features in groups:
        works = [Work(each, target.writer(each.encoder)) for each in features]
        writers = {work.writer: work for work in works}
        extraction = Extraction(settings, works, engine)
        for number, count in part.in_turn():
            with contextlib.ExitStack() as claims:
                for writer, work in writers.items():
                    if isinstance(writer, FeatureWriter):
                        claim = writer.claim(work.say_waiting, (number, count))
                        claims.enter_context(claim)
                extraction.write((number, count))
                if part.merges:
                    for writer in writers:
                        writer.finish()
        records += [Extracted.of(work, part) for work in works]
    return records


def chosen_encoders(settings: Settings, store: Store, names: str) -> list[str]:
    """The encoders that ``--encoders`` names.

    Raises:
        SettingsError: Neither the settings nor the store have one of them.
    """
    stored = [name for found in store.features if found.encoder for name in found.encoder.names]
    every = list(dict.fromkeys([DEFAULT_ENCODER, *settings.encoders, *stored]))
    known = list(dict.fromkeys([*every, *settings.named_encoders]))
    wanted = every if names == ALL else list(dict.fromkeys(names.split(",")))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise unknown_name(
            f"{CONFIG_NAME} has no encoder",
            unknown[0],
            [*known, ALL],
            "Others are described under [encoders.NAME.image] or [encoders.NAME.text].",
        )
    return wanted
