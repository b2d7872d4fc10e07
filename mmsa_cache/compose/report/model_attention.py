"""A model's attention of words to patches, for posts of a report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from extract.encoders.image import ImageSpec
from extract.encoders.words import split_words
from extract.inputs.decode import decode, fit_square, needed_side
from fuse.evidence.attention_maps import attention_map, attention_setting, average_words
from fuse.setting import Setting
from fuse.training.ensemble import Ensemble
from mmsa_cache.data.pairs import Sample, read_sample_picture
from mmsa_cache.data.splits import is_cross_validation, outer_splits
from mmsa_cache.errors import CacheNotFoundError, MmsaError, StaleCacheError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.names import EncoderPair
from mmsa_cache.runs.record import RunRecord

from ..predict.live import live_bank
from ..session.session import Session
from .attention import AttentionMaps, PostAttention

_POOLED = (
    "This model reads one vector of the text and one of the picture: it has no words that attend "
    "to patches. A model of the token level has, for example with --set level=tokens --set "
    "fusion=attention_concat."
)
_ONE_MODALITY = "This model reads one modality only, so its words attend to no patches."
_OTHER_FUSION = (
    "This model’s fusion has no attention of words over patches; attention, attention_concat, "
    "attention_combine and encoder have."
)


def attention_explainer(
    session: Session, record: RunRecord, ensemble: Ensemble | None, bank: FeatureBank | None = None
) -> Callable[[list[str]], AttentionMaps]:
    """Makes the function that computes attention maps for `page.render`.

    Where something is missing (encoder files, a tokenizer without offsets), the maps are empty and
    their note says why.

    Args:
        session: Data and encoders of the run.
        record: The run.
        ensemble: Its model; None if it cannot be loaded.
        bank: Features of the rows that the protocol divides; default: the cache, or else the posts
            are encoded.
    """

    def explain(guids: list[str]) -> AttentionMaps:
        if ensemble is None:
            return AttentionMaps("The model could not be loaded, so its attention is not shown.")
        index = attention_setting(ensemble)
        if index is None:
            return AttentionMaps(_why_no_attention(ensemble))
        wanted = set(guids)
        posts = [
            sample
            for sample in session.samples(record.protocol.judging)
            if sample.guid in wanted and sample.image_path is not None
        ]
        if not posts:
            return AttentionMaps("The pictures are not at hand, so no attention is shown.")
        try:
            return _attention_of_run(session, record, ensemble, index, posts, bank)
        except (MmsaError, OSError) as error:
            return _failed(error)

    return explain


def _why_no_attention(ensemble: Ensemble) -> str:
    settings = [blend.setting for blend in ensemble.blends]
    if all(setting.level == "pooled" for setting in settings):
        return _POOLED
    return _ONE_MODALITY if all(s.modality != "both" for s in settings) else _OTHER_FUSION


def _failed(error: MmsaError | OSError) -> AttentionMaps:
    reason = error.message if isinstance(error, MmsaError) else str(error)
    return AttentionMaps(f"The attention of words over patches cannot be shown: {reason}")


def _attention_of_run(
    session: Session,
    record: RunRecord,
    ensemble: Ensemble,
    index: int,
    posts: Sequence[Sample],
    bank: FeatureBank | None,
) -> AttentionMaps:
    """The attention of one setting's members to posts that they did not learn from."""
    blend = ensemble.blends[index]
    pair = blend.setting.encoders
    bank = (bank or _features(session, record.protocol.judging, posts, pair)).using(*pair)
    text = session.text_encoder(blend.setting.text_encoder)
    image = session.image_encoder(blend.setting.image_encoder)
    parts = _outer_parts(record, session)
    # A nested choice may give a setting to some of the outer parts.
    own_parts = record.models[index].parts or range(1, 2 + max(parts.values()))
    members_per_part = len(blend.members) // len(own_parts)
    first_member = {part: i * members_per_part for i, part in enumerate(own_parts)}
    rows = {guid: row for row, guid in enumerate(bank.guids)}
    attention = {}
    for post, words in zip(posts, split_words(text, [p.text or "" for p in posts]), strict=True):
        first = first_member.get(parts[post.guid] + 1)
        if first is None:
            continue
        members = blend.members[first : first + members_per_part]
        mapped = _attention_of_post(
            post, words, members, blend.setting, bank, rows[post.guid], image
        )
        if mapped is not None:
            attention[post.guid] = mapped
    if not any(parts[post.guid] + 1 in first_member for post in posts):
        return AttentionMaps("The members that judge these posts have no attention to show.")
    return _describe(ensemble, index, members_per_part, attention)


def attention_of(
    session: Session, ensemble: Ensemble, bank: FeatureBank, post: Sample
) -> AttentionMaps:
    """The attention of a post's words, averaged over all members of a setting.

    Args:
        session: The encoders.
        ensemble: The model.
        bank: What `live_bank` returns for this post alone.
        post: The post.
    """
    index = attention_setting(ensemble)
    if index is None:
        return AttentionMaps(_why_no_attention(ensemble))
    if not post.text or post.image_path is None:
        return AttentionMaps(
            "Attention goes from words to the patches of a picture: this needs both."
        )
    blend = ensemble.blends[index]
    try:
        bank = bank.using(*blend.setting.encoders)
        text = session.text_encoder(blend.setting.text_encoder)
        image = session.image_encoder(blend.setting.image_encoder)
        (words,) = split_words(text, [post.text])
        mapped = _attention_of_post(post, words, blend.members, blend.setting, bank, 0, image)
    except (MmsaError, OSError) as error:
        return _failed(error)
    attention = {} if mapped is None else {post.guid: mapped}
    return _describe(ensemble, index, len(blend.members), attention)


def _attention_of_post(
    post: Sample,
    words: list[tuple[str, list[int]]],
    members: Sequence[torch.nn.Module],
    setting: Setting,
    bank: FeatureBank,
    row: int,
    image: ImageSpec,
) -> PostAttention | None:
    """The attention of a post's words; None if the patches form no grid."""
    weights = attention_map(members, setting, bank, row)
    grid = _grid(setting.grid, image, weights.shape[1])
    if not words or grid is None or max(words[-1][1]) >= len(weights):
        return None
    word_weights = average_words(weights, words).reshape(len(words), *grid)
    return PostAttention(_encoder_input(post, image), [word for word, _ in words], word_weights)


def _describe(
    ensemble: Ensemble, index: int, members: int, attention: dict[str, PostAttention]
) -> AttentionMaps:
    """Adds the note to the maps.

    Args:
        ensemble: The model.
        index: Index of the setting whose attention is mapped.
        members: Members that the weights are averaged over.
        attention: The maps by guid.
    """
    if not attention:
        return AttentionMaps(
            "The patches of this encoder form no square grid, so no attention is drawn."
        )
    over = f"{members} members and their heads" if members > 1 else "the heads"
    layers = " and layers" if ensemble.blends[index].setting.fusion == "encoder" else ""
    which = f" Setting {index + 1} of {len(ensemble.blends)}." if len(ensemble.blends) > 1 else ""
    return AttentionMaps(
        f"How much attention the words of each post pay to the patches of its picture, mean "
        f"over {over}{layers}, as the model’s forward pass gives it.{which}",
        attention,
    )


def _features(
    session: Session, split: str, posts: Sequence[Sample], pair: EncoderPair
) -> FeatureBank:
    """The cached features of a split; if there are none, the posts are encoded."""
    try:
        return session.bank(split, [pair])
    except (CacheNotFoundError, StaleCacheError):
        return live_bank(session, posts, [pair])


def _outer_parts(record: RunRecord, session: Session) -> dict[str, int]:
    """By guid, the outer part whose members did not learn from it; 0 without cross-validation."""
    protocol = record.protocol
    samples = session.samples(protocol.judging)
    guids = samples.guids
    if not is_cross_validation(protocol.outer):
        return dict.fromkeys(guids, 0)
    parts = outer_splits(protocol.outer, samples.labels, session.groups(), protocol.seed)
    return {guids[row]: part for part, (_, judged) in enumerate(parts) for row in judged.tolist()}


def _grid(side: int, image: ImageSpec, patches: int) -> tuple[int, int] | None:
    """(rows, columns) of the patches that a model reads; None if they form no grid."""
    if side:
        return side, side
    averaged = image.options.grid()
    if averaged is not None:
        return averaged
    root = math.isqrt(patches)
    return (root, root) if root * root == patches else None


def _encoder_input(post: Sample, image: ImageSpec) -> NDArray[np.uint8]:
    """The picture as the encoder reads it, (side, side, 3) uint8."""
    side = needed_side(image.size, image.crop)
    pixels = decode(read_sample_picture(post), post.picture_name, side)
    square = fit_square(pixels, image.size, image.crop)
    array: NDArray[np.uint8] = square.permute(1, 2, 0).contiguous().numpy()
    return array
