"""The attention of words over pictures: stage two's weights on stage one's inputs.

Only commands import this; both stages are imported when a function runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmsa_cache.config.settings import Settings
from mmsa_cache.data.dataset import Sample
from mmsa_cache.data.splits import duplicate_groups, is_cross_validation, outer_splits
from mmsa_cache.errors import CacheNotFoundError, MmsaError, StaleCacheError
from mmsa_cache.features.bank import EncoderPair, FeatureBank

from .pipeline import live_bank, open_bank, resolve_encoder

_NONE = {
    "pooled": "This model reads one vector of the text and one of the picture: it has no words "
    "that attend to patches. A model of the token level has, for example with "
    "--set level=tokens --set fusion=attention_concat.",
    "other": "This model’s fusion has no attention of words over patches; attention, "
    "attention_concat, attention_combine and encoder have.",
    "one": "This model reads one modality only, so its words attend to no patches.",
}


def explainer(
    ensemble: Any,
    settings: Settings,
    samples: Sequence[Sample],
    config: Mapping[str, Any],
    bank: FeatureBank | None = None,
) -> Callable[[list[str]], Any]:
    """What `fuse.report.report.render` asks for the attention of posts.

    What cannot be had (encoder files away, a tokenizer without offsets) is said in the report and
    never ends it.

    Args:
        ensemble: The final model, or None where it cannot be loaded.
        settings: Those it was made under.
        samples: Its training split.
        config: Its ``config.json``.
        bank: Features of these samples; default: the cache, or the posts encoded now.
    """
    from fuse.report.attention_maps import Maps, mapped_setting

    def explain(guids: list[str]) -> Maps:
        if ensemble is None:
            return Maps("The model could not be loaded, so its attention is not shown.")
        chosen = mapped_setting(ensemble)
        if chosen is None:
            return Maps(_NONE[_why(ensemble)])
        posts = [sample for sample in samples if sample.guid in set(guids)]
        if not posts:
            return Maps("The data is not at hand, so no attention is shown.")
        try:
            return _explained(ensemble, chosen, settings, samples, posts, config, bank)
        except (MmsaError, OSError) as error:
            reason = error.message if isinstance(error, MmsaError) else str(error)
            return Maps(f"The attention of words over patches cannot be shown: {reason}")

    return explain


def _why(ensemble: Any) -> str:
    settings = [blend.setting for blend in ensemble.blends]
    if all(setting.level == "pooled" for setting in settings):
        return "pooled"
    return "one" if all(setting.modality != "both" for setting in settings) else "other"


def _explained(
    ensemble: Any,
    chosen: int,
    settings: Settings,
    samples: Sequence[Sample],
    posts: Sequence[Sample],
    config: Mapping[str, Any],
    bank: FeatureBank | None,
) -> Any:
    from extract.encoders.text import words_of
    from fuse.report.attention_maps import Attended, Maps, by_word, word_to_patch

    blend = ensemble.blends[chosen]
    pair = blend.setting.encoders
    bank = (bank or _features(settings, samples, posts, pair)).using(*pair)
    text, image = (
        resolve_encoder(settings.with_encoder(modality, name), modality)
        for modality, name in zip(("text", "image"), pair, strict=True)
    )
    of_part, members = _parts(config, samples), blend.members
    each = len(members) // (1 + max(of_part.values()))
    index = {guid: number for number, guid in enumerate(bank.guids)}
    found = {}
    words = words_of(text, [post.text for post in posts])
    for post, own in zip(posts, words, strict=True):
        part = of_part[post.guid]
        judging = members[part * each : (part + 1) * each]
        weights = word_to_patch(judging, blend.setting, bank, index[post.guid])
        grid = _grid(blend.setting.grid, image, weights.shape[1])
        if not own or grid is None or max(own[-1][1]) >= len(weights):
            continue
        found[post.guid] = Attended(
            _seen(post, image),
            [word for word, _ in own],
            by_word(weights, own).reshape(len(own), *grid),
        )
    of = f"{each} members and their heads" if each > 1 else "the heads"
    layers = " and layers" if blend.setting.fusion == "encoder" else ""
    which = f" Setting {chosen + 1} of {len(ensemble.blends)}." if len(ensemble.blends) > 1 else ""
    if not found:
        return Maps("The patches of this encoder form no square grid, so no attention is drawn.")
    return Maps(
        f"Beside each post: how much attention its words pay to the patches of its picture, mean "
        f"over {of}{layers}, as the model’s forward pass gives it.{which}",
        found,
    )


def _features(
    settings: Settings, samples: Sequence[Sample], posts: Sequence[Sample], pair: EncoderPair
) -> FeatureBank:
    """The cache of the training split, or without it these posts encoded now."""
    try:
        return open_bank(settings, "train", samples, [pair])
    except (CacheNotFoundError, StaleCacheError):
        return live_bank(settings, posts, pairs=[pair])


def _parts(config: Mapping[str, Any], samples: Sequence[Sample]) -> dict[str, int]:
    """Guid → the part of a cross-validation whose members did not learn from it; else 0."""
    import numpy as np

    if not is_cross_validation(config["outer"]):
        return dict.fromkeys((sample.guid for sample in samples), 0)
    labels = np.array([sample.label for sample in samples], np.int64)
    parts = outer_splits(config["outer"], labels, duplicate_groups(samples), config["seed"])
    return {
        samples[row].guid: number
        for number, (_, judged) in enumerate(parts)
        for row in judged.tolist()
    }


def _grid(side: int, image: Any, patches: int) -> tuple[int, int] | None:
    """(rows, columns) of the patches that a model reads; None where they form no grid."""
    import math

    if side:
        return side, side
    averaged = image.options.grid()
    if averaged is not None:
        return averaged
    root = math.isqrt(patches)
    return (root, root) if root * root == patches else None


def _seen(post: Sample, image: Any) -> Any:
    """The picture as the encoder saw it, (side, side, 3) uint8."""
    from extract.inputs.decode import decode, fit_square, needed_side

    pixels = decode(
        post.image_path.read_bytes(), post.image_path.name, needed_side(image.size, image.crop)
    )
    return fit_square(pixels, image.size, image.crop).permute(1, 2, 0).contiguous().numpy()
