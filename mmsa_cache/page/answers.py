"""Predictions of single posts, with explanations. Independent of HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsa_cache.compose.predict.predict import WHOLE_PAIRS
from mmsa_cache.compose.predict.predictor import Predictor
from mmsa_cache.compose.report.attention import PostMaps, word_maps
from mmsa_cache.compose.report.model_attention import attention_of
from mmsa_cache.data.files import strip_text
from mmsa_cache.data.pairs import Sample
from mmsa_cache.errors import MmsaError, SettingsError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.names import MODALITIES, split_terms

from .nearest import NearestPosts, Neighbour

SPLIT = "train"
"""Split whose rows are shown as neighbours."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Prediction of a post."""

    tag: str
    """The predicted class."""
    probabilities: dict[str, float]
    """By class, in the order of the model's classes."""
    notes: list[str]
    """Caveats of the prediction."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the model looked at in a post, and similar posts."""

    attention: PostMaps | None
    attention_note: str
    """What the weights are, or why there are none."""
    nearest: list[Neighbour]
    nearest_note: str
    """Why there are no neighbours; else empty."""


class Answers:
    """A trained model that predicts posts, with its encoders loaded. Not thread-safe.

    Raises:
        ModelError: An encoder is missing.
    """

    def __init__(self, model: Predictor) -> None:
        self.model = model
        for pair in model.pairs:
            for modality, names in zip(MODALITIES, pair, strict=True):
                for name in split_terms(names):
                    model.session.load_encoder(modality, name)
        self._nearest, self._nearest_note = _load_nearest(model)

    def answer(self, text: str | None, image: Path | None) -> Answer:
        """Predicts a post; its text or its picture may be missing.

        Raises:
            SettingsError: Both are missing.
            DataError: The text is empty or the picture cannot be used.
            ModelError: An encoder is missing.
        """
        post = self._make_sample(text, image)
        return self._predict(text, post, self.model.encode_posts([post]))

    def explain(self, text: str | None, image: Path | None) -> tuple[Answer, Explanation]:
        """As `answer`, with an explanation."""
        post = self._make_sample(text, image)
        bank = self.model.encode_posts([post])
        answer = self._predict(text, post, bank)
        maps = attention_of(self.model.session, self.model.ensemble, bank, post)
        nearest = self._nearest.find(bank) if self._nearest else []
        attention = maps.posts.get(post.guid)
        drawn = None if attention is None else word_maps(attention)
        return answer, Explanation(drawn, maps.note, nearest, self._nearest_note)

    def _make_sample(self, text: str | None, image: Path | None) -> Sample:
        text = text if text and strip_text(text) else None
        if text is None and image is None:
            raise SettingsError("There is neither a text nor a picture.", "Give one, or both.")
        return self.model.post(text, image)

    def _predict(self, text: str | None, post: Sample, bank: FeatureBank) -> Answer:
        ((_, probabilities),) = self.model.predict_bank(bank)
        (tag,) = self.model.decide([probabilities])
        likeliest = self.model.classes[int(np.argmax(probabilities))]
        notes = []
        if tag != likeliest:
            notes.append(f"{likeliest} is likelier; the rule {self.model.rule} decides for {tag}.")
        limit = self.model.session.settings.data.max_chars
        if limit and len(strip_text(text or "")) > limit:
            notes.append(f"The text was cut to {limit} characters, as the training texts were.")
        if not (post.text and post.image_path) and not self.model.accepts_missing_modality:
            notes.append(WHOLE_PAIRS)
        return Answer(tag, dict(zip(self.model.classes, probabilities, strict=True)), notes)


def _load_nearest(model: Predictor) -> tuple[NearestPosts | None, str]:
    """Opens the labelled posts of the model's store, or says why it cannot."""
    try:
        stored = model.session.store.split(SPLIT)
        if stored is not None and [*stored[0].classes] != model.classes:
            return None, f"The store’s posts have other classes: {', '.join(stored[0].classes)}."
        samples = model.session.samples(SPLIT)
        bank = model.session.bank(SPLIT, model.pairs)
        return NearestPosts(bank, samples, model.classes, model.ensemble), ""
    except (MmsaError, OSError) as error:
        reason = f"{error.message} {error.hint}" if isinstance(error, MmsaError) else str(error)
        return None, f"Training posts are missing: {reason}"
