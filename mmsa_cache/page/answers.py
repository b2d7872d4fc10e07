"""A post → what the model says of it. Knows nothing of HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsa_cache.compose.predict.predict import WHOLE_PAIRS
from mmsa_cache.compose.predict.predictor import Predictor
from mmsa_cache.compose.report.attended import attention_of
from mmsa_cache.compose.report.attention import PostMaps, word_maps
from mmsa_cache.data.files import strip_text
from mmsa_cache.data.pairs import Sample
from mmsa_cache.errors import MmsaError, SettingsError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.names import MODALITIES, terms_of

from .nearest import Nearest, Neighbour

SPLIT = "train"
"""Whose rows are shown as neighbours."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said of a post."""

    tag: str
    """The class that is decided for."""
    probabilities: dict[str, float]
    """By class, in the order of the model's classes."""
    notes: list[str]
    """What a reader must know."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a post was read as."""

    attention: PostMaps | None
    attention_said: str
    """What the weights are, or why there are none."""
    nearest: list[Neighbour]
    nearest_said: str
    """Why there are none; else empty."""


class Answers:
    """A trained model that answers posts, for one thread. Its encoders are loaded at once.

    Raises:
        ModelError: An encoder is not at hand.
    """

    def __init__(self, model: Predictor) -> None:
        self.model = model
        for pair in model.pairs:
            for modality, names in zip(MODALITIES, pair, strict=True):
                for name in terms_of(names):
                    model.session.loaded(modality, name)
        self._nearest, self._nearest_said = _nearest_of(model)

    def answer(self, text: str | None, image: Path | None) -> Answer:
        """Predicts a post, of which a half may be missing.

        Raises:
            SettingsError: Both halves are.
            DataError: The text is empty or the picture cannot be used.
            ModelError: An encoder is not at hand.
        """
        post = self._post(text, image)
        return self._answer(text, post, self.model.encoded([post]))

    def explained(self, text: str | None, image: Path | None) -> tuple[Answer, Explanation]:
        """`answer`, with what it was read as."""
        post = self._post(text, image)
        bank = self.model.encoded([post])
        answer = self._answer(text, post, bank)
        maps = attention_of(self.model.session, self.model.ensemble, bank, post)
        nearest = self._nearest.of(bank) if self._nearest else []
        seen = maps.posts.get(post.guid)
        attention = None if seen is None else word_maps(seen)
        return answer, Explanation(attention, maps.said, nearest, self._nearest_said)

    def _post(self, text: str | None, image: Path | None) -> Sample:
        text = text if text and strip_text(text) else None
        if text is None and image is None:
            raise SettingsError("There is neither a text nor a picture.", "Give one, or both.")
        return self.model.post(text, image)

    def _answer(self, text: str | None, post: Sample, bank: FeatureBank) -> Answer:
        ((_, probabilities),) = self.model.predict_bank(bank)
        (tag,) = self.model.decide([probabilities])
        likeliest = self.model.classes[int(np.argmax(probabilities))]
        notes = []
        if tag != likeliest:
            notes.append(f"{likeliest} is likelier; the rule {self.model.rule} decides for {tag}.")
        most = self.model.session.settings.data.max_chars
        if most and len(strip_text(text or "")) > most:
            notes.append(f"The text was cut to {most} characters, as those that were learned from.")
        if not (post.text and post.image_path) and not self.model.knows_halves:
            notes.append(WHOLE_PAIRS)
        return Answer(tag, dict(zip(self.model.classes, probabilities, strict=True)), notes)


def _nearest_of(model: Predictor) -> tuple[Nearest | None, str]:
    """The labelled posts of the model's store, or why there are none."""
    try:
        stored = model.session.store.split(SPLIT)
        if stored is not None and [*stored[0].classes] != model.classes:
            return None, f"The store’s posts have other classes: {', '.join(stored[0].classes)}."
        samples = model.session.samples(SPLIT)
        bank = model.session.bank(SPLIT, model.pairs)
        return Nearest(bank, samples, model.classes, model.ensemble), ""
    except (MmsaError, OSError) as error:
        reason = f"{error.message} {error.hint}" if isinstance(error, MmsaError) else str(error)
        return None, f"Training posts are not at hand: {reason}"
