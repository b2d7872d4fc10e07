"""Features of posts that were not extracted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from extract.plan import RowPlan, plan_rows
from extract.shards import encode_rows
from extract.streams import rows_a_batch
from mmsa_cache.data.pairs import Sample
from mmsa_cache.features.absent import missing_features
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.batch import Dims, required_pools
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.names import DEFAULT_PAIR, EncoderPair
from mmsa_cache.store.schema import Shard

from ..extraction.readers import reader_of
from ..session.samples import bank_choice
from ..session.session import Session


def live_bank(
    session: Session,
    samples: Sequence[Sample],
    pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,),
    expected: Sequence[Dims] = (),
    positions: int = 1,
    reuse: bool = False,
) -> FeatureBank:
    """Encodes samples now, without augmented variants.

    The features equal those of a store to about one part in a thousand, the resolution of float16:
    padding and batches change the order of additions.

    Args:
        session: Has the encoders.
        samples: What to encode; a modality that one lacks is masked out.
        pairs: See `Session.bank`.
        expected: Sizes of the features that the model of each pair reads; needed for a modality
            that all samples lack.
        positions: Patches that the models expect of a picture.
        reuse: Read stored rows where the encoders are those of a model.
    """
    readers = list(zip(pairs, expected, strict=True)) if expected else []

    def encode(modality: str, name: str) -> ModalityFeatures:
        rows = plan_rows(samples, {}, "none", modality)
        if len(rows) or not readers:
            return _encode(session, rows, modality, name, reuse)
        dim = getattr(readers[0][1], modality)
        count = positions if modality == "image" else 1
        vectors = required_pools(readers, modality, name)
        return missing_features(dim, vectors, count, len(samples))

    return bank_choice(encode, samples).open(pairs)


def _encode(
    session: Session, rows: RowPlan, modality: str, name: str, reuse: bool
) -> ModalityFeatures:
    """Features of rows, read from the store where `reuse` is set, else encoded now."""
    shards: Sequence[Shard] = ()
    indices = np.full(len(rows), -1)
    trained_on = session.trained_on.get(modality, {}).get(name)
    if reuse and trained_on is not None:
        shards, indices = session.store.rows(trained_on, rows.sample_rows)
    missing = np.flatnonzero(indices < 0).tolist()
    if missing:
        spec, encoder = session.encoder(modality, name), session.load_encoder(modality, name)
        batch_size = rows_a_batch(session.settings.extract.batch_size, session.device)
        reader = reader_of(spec, session.settings.seed)
        indices[missing] = sum(map(len, shards)) + np.arange(len(missing))
        new_rows = [rows[index] for index in missing]
        shards = [*shards, encode_rows(new_rows, reader, encoder, session.device, batch_size)]
    return ModalityFeatures(shards, f"{modality} ({name})", indices, rows.sample_rows.table)
