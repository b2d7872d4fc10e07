"""Features encoded now, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from extract.plan import plan_rows
from extract.shards import encode_rows
from extract.streams import rows_a_batch
from mmsa_cache.data.dataset import single_sample
from mmsa_cache.data.pairs import Sample
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.batch import Dims, pools_read
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.names import OWN_PAIR, EncoderPair

from .readers import reader_of
from .samples import banks_of
from .session import Session


def live_bank(
    session: Session, samples: Sequence[Sample], pairs: Sequence[EncoderPair] = (OWN_PAIR,)
) -> FeatureBank:
    """Encodes samples now, without a cache and without variants.

    The features equal those of the cache up to the order of additions, which padding and
    batches change: about one part in a thousand, the resolution of float16.

    Args:
        session: Has the encoders.
        samples: What to encode.
        pairs: See `Session.bank`.
    """

    def encode(modality: str, name: str) -> ModalityFeatures:
        return _encoded(session, samples, modality, name)

    return banks_of(encode, samples).open(pairs)


def live_pair(
    session: Session,
    text: str | None,
    image: Path | None,
    readers: Sequence[tuple[EncoderPair, Dims]],
    positions: int,
) -> FeatureBank:
    """Encodes one post of which a part is missing; the bank masks that part out.

    Args:
        session: Has the encoders.
        text: Its text, or None.
        image: Its picture, or None.
        readers: Of each model, its encoders and the features that it expects.
        positions: Patches that the model expects of a picture.
    """
    given = {"text": text, "image": image}
    sample = single_sample(text, image)

    def encode(modality: str, name: str) -> ModalityFeatures:
        if given[modality] is not None:
            return _encoded(session, [sample], modality, name)
        vectors = pools_read(readers, modality, name)
        dims = getattr(readers[0][1], modality)
        return ModalityFeatures.absent(dims, vectors, positions if modality == "image" else 1)

    return banks_of(encode, [sample], partial=True).open([pair for pair, _ in readers])


def _encoded(
    session: Session, samples: Sequence[Sample], modality: str, name: str
) -> ModalityFeatures:
    """Features of samples, encoded now, without variants."""
    spec, encoder = session.encoder(modality, name), session.loaded(modality, name)
    rows = plan_rows(samples, {}, "none", modality)
    batch_size = rows_a_batch(session.settings.extract.batch_size, session.device)
    reader = reader_of(spec, session.settings.seed)
    shard = encode_rows(rows, reader, encoder, session.device, batch_size)
    return ModalityFeatures([shard], f"{modality} ({spec.label})", table=rows.wanted.table)
