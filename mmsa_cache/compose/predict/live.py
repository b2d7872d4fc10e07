"""Features of posts that no extraction was made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from extract.plan import RowPlan, plan_rows
from extract.shards import encode_rows
from extract.streams import rows_a_batch
from mmsa_cache.data.pairs import Sample
from mmsa_cache.features.absent import absent
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.batch import Dims, pools_read
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
    """Encodes samples now, without variants.

    The features equal those of a cache up to the order of additions, which padding and batches
    change: about one part in a thousand, the resolution of float16.

    Args:
        session: Has the encoders.
        samples: What to encode; a half that one lacks is masked out.
        pairs: See `Session.bank`.
        expected: Of each pair, the features that a model reads: these sizes stand for a half that
            all samples lack.
        positions: Patches that the models expect of a picture.
        reuse: Read what the store has, where the encoders are those of a model.
    """
    readers = list(zip(pairs, expected, strict=True)) if expected else []

    def encode(modality: str, name: str) -> ModalityFeatures:
        rows = plan_rows(samples, {}, "none", modality)
        if len(rows) or not readers:
            return _encoded(session, rows, modality, name, reuse)
        dim = getattr(readers[0][1], modality)
        count = positions if modality == "image" else 1
        vectors = pools_read(readers, modality, name)
        return absent(dim, vectors, count, len(samples))

    return bank_choice(encode, samples).open(pairs)


def _encoded(
    session: Session, rows: RowPlan, modality: str, name: str, reuse: bool
) -> ModalityFeatures:
    """Features of rows, encoded now where they are not read."""
    shards: Sequence[Shard] = ()
    places = np.full(len(rows), -1)
    trained_on = session.trained_on.get(modality, {}).get(name)
    if reuse and trained_on is not None:
        shards, places = session.store.rows(trained_on, rows.wanted)
    missing = np.flatnonzero(places < 0).tolist()
    if missing:
        spec, encoder = session.encoder(modality, name), session.load_encoder(modality, name)
        batch_size = rows_a_batch(session.settings.extract.batch_size, session.device)
        reader = reader_of(spec, session.settings.seed)
        fresh = [rows[place] for place in missing]
        places[missing] = sum(map(len, shards)) + np.arange(len(missing))
        shards = [*shards, encode_rows(fresh, reader, encoder, session.device, batch_size)]
    return ModalityFeatures(shards, f"{modality} ({name})", places, rows.wanted.table)
