"""The attention of words to patches: a model's weights over the inputs of its encoders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from extract.encoders.image import ImageSpec
from extract.encoders.words import words_of
from extract.inputs.decode import decode, fit_square, needed_side
from fuse.evidence.attention_maps import by_word, mapped_setting, word_to_patch
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
from .attention import Attended, Maps

_NONE = {
    "pooled": "This model reads one vector of the text and one of the picture: it has no words "
    "that attend to patches. A model of the token level has, for example with "
    "--set level=tokens --set fusion=attention_concat.",
    "other": "This model’s fusion has no attention of words over patches; attention, "
    "attention_concat, attention_combine and encoder have.",
    "one": "This model reads one modality only, so its words attend to no patches.",
}


def explainer(
    session: Session, record: RunRecord, ensemble: Ensemble | None, bank: FeatureBank | None = None
) -> Callable[[list[str]], Maps]:
    """What `page.render` asks for the attention of posts.

    What is missing (encoder files, a tokenizer without offsets) is said in the report and never
    ends it.

    Args:
        session: The data and the encoders of the run.
        record: The run.
        ensemble: Its model, or None where it cannot be loaded.
        bank: Features of the rows that its protocol divides; default: the cache, or the posts
            encoded now.
    """

    def explain(guids: list[str]) -> Maps:
        if ensemble is None:
            return Maps("The model could not be loaded, so its attention is not shown.")
        chosen = mapped_setting(ensemble)
        if chosen is None:
            return Maps(_NONE[_why(ensemble)])
        wanted = set(guids)
        posts = [
            sample
            for sample in session.samples(record.protocol.judging)
            if sample.guid in wanted and sample.image_path is not None
        ]
        if not posts:
            return Maps("The pictures are not at hand, so no attention is shown.")
        try:
            return _explained(session, record, ensemble, chosen, posts, bank)
        except (MmsaError, OSError) as error:
            return _cannot(error)

    return explain


def _why(ensemble: Ensemble) -> str:
    settings = [blend.setting for blend in ensemble.blends]
    if all(setting.level == "pooled" for setting in settings):
        return "pooled"
    return "one" if all(setting.modality != "both" for setting in settings) else "other"


def _explained(
    session: Session,
    record: RunRecord,
    ensemble: Ensemble,
    chosen: int,
    posts: Sequence[Sample],
    bank: FeatureBank | None,
) -> Maps:
    blend = ensemble.blends[chosen]
    pair = blend.setting.encoders
    bank = (bank or _features(session, record.protocol.judging, posts, pair)).using(*pair)
    text = session.text_encoder(blend.setting.text_encoder)
    image = session.image_encoder(blend.setting.image_encoder)
    of_part, members = _parts(record, session), blend.members
    each = len(members) // (1 + max(of_part.values()))
    index = {guid: number for number, guid in enumerate(bank.guids)}
    found = {}
    words = words_of(text, [post.text or "" for post in posts])
    for post, own in zip(posts, words, strict=True):
        part = of_part[post.guid]
        judging = members[part * each : (part + 1) * each]
        seen = _attended(post, own, judging, blend.setting, bank, index[post.guid], image)
        if seen is not None:
            found[post.guid] = seen
    return _maps(ensemble, chosen, each, found)


def attention_of(session: Session, ensemble: Ensemble, bank: FeatureBank, post: Sample) -> Maps:
    """The attention of a post's words in the mean of all members of a model.

    Args:
        session: The encoders.
        ensemble: The model.
        bank: What `live_bank` gave for this post alone.
        post: The post.
    """
    chosen = mapped_setting(ensemble)
    if chosen is None:
        return Maps(_NONE[_why(ensemble)])
    if not post.text or post.image_path is None:
        return Maps("Attention goes from words to the patches of a picture: this needs both.")
    blend = ensemble.blends[chosen]
    try:
        own = bank.using(*blend.setting.encoders)
        text = session.text_encoder(blend.setting.text_encoder)
        image = session.image_encoder(blend.setting.image_encoder)
        (words,) = words_of(text, [post.text])
        seen = _attended(post, words, blend.members, blend.setting, own, 0, image)
    except (MmsaError, OSError) as error:
        return _cannot(error)
    found = {} if seen is None else {post.guid: seen}
    return _maps(ensemble, chosen, len(blend.members), found)


def _cannot(error: MmsaError | OSError) -> Maps:
    reason = error.message if isinstance(error, MmsaError) else str(error)
    return Maps(f"The attention of words over patches cannot be shown: {reason}")


def _attended(
    post: Sample,
    words: list[tuple[str, list[int]]],
    members: Sequence[torch.nn.Module],
    setting: Setting,
    bank: FeatureBank,
    row: int,
    image: ImageSpec,
) -> Attended | None:
    """A post with the attention of its words; None where the patches form no grid."""
    weights = word_to_patch(members, setting, bank, row)
    grid = _grid(setting.grid, image, weights.shape[1])
    if not words or grid is None or max(words[-1][1]) >= len(weights):
        return None
    of_words = by_word(weights, words).reshape(len(words), *grid)
    return Attended(_seen(post, image), [word for word, _ in words], of_words)


def _maps(ensemble: Ensemble, chosen: int, members: int, found: dict[str, Attended]) -> Maps:
    """What is said of the attention of posts.

    Args:
        ensemble: The model.
        chosen: Place of the setting whose attention it is.
        members: How many of its members each post's weights are the mean of.
        found: The posts.
    """
    if not found:
        return Maps("The patches of this encoder form no square grid, so no attention is drawn.")
    of = f"{members} members and their heads" if members > 1 else "the heads"
    layers = " and layers" if ensemble.blends[chosen].setting.fusion == "encoder" else ""
    which = f" Setting {chosen + 1} of {len(ensemble.blends)}." if len(ensemble.blends) > 1 else ""
    return Maps(
        f"How much attention the words of each post pay to the patches of its picture, mean "
        f"over {of}{layers}, as the model’s forward pass gives it.{which}",
        found,
    )


def _features(
    session: Session, split: str, posts: Sequence[Sample], pair: EncoderPair
) -> FeatureBank:
    """The cache of a split, or without it these posts encoded now."""
    try:
        return session.bank(split, [pair])
    except (CacheNotFoundError, StaleCacheError):
        return live_bank(session, posts, [pair])


def _parts(record: RunRecord, session: Session) -> dict[str, int]:
    """Guid → the part of a cross-validation whose members did not learn from it; else 0."""
    protocol = record.protocol
    samples = session.samples(protocol.judging)
    if not is_cross_validation(protocol.outer):
        return dict.fromkeys((sample.guid for sample in samples), 0)
    guids = samples.guids
    return {
        guids[row]: number
        for number, (_, judged) in enumerate(
            outer_splits(protocol.outer, samples.labels, session.groups(), protocol.seed)
        )
        for row in judged.tolist()
    }


def _grid(side: int, image: ImageSpec, patches: int) -> tuple[int, int] | None:
    """(rows, columns) of the patches that a model reads; None where they form no grid."""
    if side:
        return side, side
    averaged = image.options.grid()
    if averaged is not None:
        return averaged
    root = math.isqrt(patches)
    return (root, root) if root * root == patches else None


def _seen(post: Sample, image: ImageSpec) -> NDArray[np.uint8]:
    """The picture as the encoder saw it, (side, side, 3) uint8."""
    pixels = decode(
        read_sample_picture(post), post.picture_name, needed_side(image.size, image.crop)
    )
    square = fit_square(pixels, image.size, image.crop)
    seen: NDArray[np.uint8] = square.permute(1, 2, 0).contiguous().numpy()
    return seen
