"""``mmsa extract``: extracts the missing features of splits."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from mmsa_cache.config.settings import ALL, CONFIG_NAME, Settings
from mmsa_cache.console import say
from mmsa_cache.names import DEFAULT_ENCODER, SPLITS, check_split, unknown_name
from mmsa_cache.store.writer import FeatureWriter

from ..hub.data_set import fetch_data
from ..session.completion import use_stored_data_settings
from ..session.path_policy import PathPolicy
from ..session.samples import splits_of
from ..session.store import Store
from .crew import EngineRequest
from .extraction import Extraction, PendingFeatures
from .feature_requests import FeatureRequest, feature_requests
from .lexicon import add_rule_encoders
from .parts import WHOLE, Portion
from .reading import read_splits
from .target import Target

_HERE = EngineRequest()


@dataclass(frozen=True, slots=True)
class Extracted:
    """The result for one encoder and split."""

    name: str
    """The encoder's name in the settings."""
    split: str
    modality: str
    encoder: str
    directory: str
    samples: int
    rows: int
    """Rows that the split needs; equal inputs count once."""
    rows_computed: int
    rows_already_there: int
    rows_shared: int
    """Rows whose input equals that of another row."""
    bytes: int
    """Size of all features of this encoder."""
    seconds: float
    set_aside: int
    """Rows of the split that are left out because of a bad text or picture."""

    @classmethod
    def of(cls, features: PendingFeatures, part: Portion) -> Extracted:
        """The result of extracting a part of features."""
        jobs, request = features.jobs, features.request
        computed = sum(job.computed for job in jobs)
        shared = jobs[0].duplicates if jobs else features.rows.sample_rows.shared
        stored = sum(job.present for job in jobs)
        if part.merges or not jobs:  # parts that had nothing to do count too
            stored = len(features.rows) - (shared - features.rows.sample_rows.shared) - computed
        return cls(
            name=request.name,
            split=features.split,
            modality=request.encoder.identity.modality,
            encoder=request.encoder.identity.label,
            directory=str(features.writer.folder),
            samples=len(request.split.samples),
            rows=len(features.rows),
            rows_computed=computed,
            rows_already_there=stored,
            rows_shared=shared,
            bytes=features.writer.bytes,
            seconds=round(features.seconds, 2),
            set_aside=request.split.about.aside,
        )


def extract_splits(
    settings: Settings,
    split: str,
    encoders: str = DEFAULT_ENCODER,
    part: Portion = WHOLE,
    engine: EngineRequest = _HERE,
) -> list[Extracted]:
    """Extracts the missing features of one split or of all.

    Args:
        settings: The command's settings; those that are not set are taken from the store.
        split: One of `SPLITS`, or ``all``.
        encoders: Names joined by commas, or ``all``. A name may have an encoder of one modality
            only; an encoder of two names is extracted once.
        part: The part of the rows to extract.
        engine: The workers; default: this process.

    Returns:
        One record an encoder and split.

    Raises:
        SettingsError: Unknown split or encoder.
        MmsaError: As the data, the encoders and the store raise.
    """
    check_split(split, (*SPLITS, ALL))
    engine = engine.with_all_gpus(settings)  # raises before data is read
    store = Store(settings.cache.dir, renewing=True)
    policy = PathPolicy(settings, store.root)
    settings = use_stored_data_settings(fetch_data(settings), store, policy, extracting=True)
    names = parse_encoders(settings, store, encoders)
    splits = read_splits(settings, store, split)
    if split == "train" and not store.split("val") and "val" in splits_of(settings, store):
        say("Note: the data has a split val, which is not extracted: --split val, or all.")
    names = add_rule_encoders(names, settings, store, splits)
    target = Target(store.root, engine.target)
    local = engine.target is None
    requests = [
        list(feature_requests(settings, store, policy, name, splits, local=local)) for name in names
    ]
    target.write(splits)
    # The features of a name are written in one run, so that none waits for another; where workers
    # have to be started, those of all names. Every process takes claims in this order.
    groups = requests if engine.chosen is None else [list(chain(*requests))]
    return [
        record
        for group in groups
        for record in _extract_group(settings, group, target, part, engine)
    ]


def _extract_group(
    settings: Settings,
    requests: Sequence[FeatureRequest],
    target: Target,
    part: Portion,
    engine: EngineRequest,
) -> list[Extracted]:
    """Extracts features in one run, while their writers are claimed."""
    pending = [PendingFeatures(request, target.writer(request.encoder)) for request in requests]
    writers = {features.writer: features for features in pending}
    extraction = Extraction(settings, pending, engine)
    for number, count in part.in_turn():
        with contextlib.ExitStack() as claims:
            for writer, features in writers.items():
                if isinstance(writer, FeatureWriter):
                    claim = writer.claim(features.say_waiting, (number, count))
                    claims.enter_context(claim)
            extraction.write((number, count))
            if part.merges:
                for writer in writers:
                    writer.finish()
    return [Extracted.of(features, part) for features in pending]


def parse_encoders(settings: Settings, store: Store, names: str) -> list[str]:
    """Parses the names of ``--encoders``.

    Raises:
        SettingsError: Neither the settings nor the store have an encoder of this name.
    """
    stored = [name for of in store.features if of.encoder for name in of.encoder.names]
    every = list(dict.fromkeys([DEFAULT_ENCODER, *settings.encoders, *stored]))
    known = list(dict.fromkeys([*every, *settings.named_encoders]))
    parsed = every if names == ALL else list(dict.fromkeys(names.split(",")))
    unknown = [name for name in parsed if name not in known]
    if unknown:
        raise unknown_name(
            f"{CONFIG_NAME} has no encoder",
            unknown[0],
            [*known, ALL],
            "Others are described under [encoders.NAME.image] or [encoders.NAME.text].",
        )
    return parsed
