"""HTML of ``mmsa serve``. All data passes through jinja2's autoescape."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmsa_cache.compose.predict.predictor import Predictor
from mmsa_cache.compose.report.charts import class_colours
from mmsa_cache.compose.report.gallery import (
    Card,
    GalleryPost,
    cards,
    confident_errors,
    gallery_posts,
    load_thumbnail,
)
from mmsa_cache.compose.report.report import PAGE
from mmsa_cache.compose.report.templates import render_page, report_templates
from mmsa_cache.errors import DataError, MmsaError, SettingsError
from mmsa_cache.files.untrusted import open_regular
from mmsa_cache.runs.folder import RunFolder

from .answers import Answer, Explanation
from .guard import Limits

_HERE = Path(__file__).parent
_STYLES = ("shell.css", "report.css", "page.css")
_MOST_ERRORS = 24
"""Wrong predictions on a page."""
_THUMBNAIL = 160
"""Longest side of a neighbour's picture, in pixels."""
_MOST_CHARS = 300
"""Characters shown of a neighbour's text."""
_CHUNK_BYTES = 1 << 16
"""Bytes of a report that are read at a time."""


class View:
    """The pages of a run or an export."""

    def __init__(self, run: RunFolder, model: Predictor, limits: Limits, url: str) -> None:
        self.name, self._run, self._model = run.name, run, model
        files = report_templates(_HERE)
        self.style = "\n".join(files.get_template(name).render() for name in _STYLES)
        self.script, self.icon = (files.get_template(n).render() for n in ("page.js", "icon.svg"))
        self._common: dict[str, object] = {
            "run": run.name,
            "url": url,
            "record": run.record,
            "classes": run.record.classes,
            "colours": class_colours(model.classes),
            "caveats": model.notes,
            "metrics": run.figures,
            "most_bytes": limits.picture,
        }

    def _render(self, template: str, **values: object) -> str:
        return render_page(template, _HERE, **self._common | values)

    def page(
        self,
        text: str | None = None,
        answer: Answer | None = None,
        explanation: Explanation | None = None,
        error: MmsaError | None = None,
    ) -> str:
        """The page, with the answer to a post if one was sent.

        Args:
            text: Text of the post.
            answer: Its prediction.
            explanation: Explanation of the prediction.
            error: Why there is no prediction.
        """
        nearest = [] if explanation is None else explanation.nearest
        return self._render(
            "index.html.j2",
            text=text or "",
            answer=answer,
            explanation=explanation,
            nearest=[(post, *load_thumbnail(post.image, _THUMBNAIL)) for post in nearest],
            most_chars=_MOST_CHARS,
            error=error,
        )

    def report(self) -> Iterator[bytes]:
        """The run's report in chunks, or a page that says why there is none."""
        try:
            with open_regular(self._run.file_path(PAGE)) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
            return
        except FileNotFoundError:
            message = "There is no report here. A run has one; an export of it has none."
        except (MmsaError, OSError, ValueError) as error:
            message = f"The report cannot be read: {error}"
        yield self._frame("Report", message).encode()

    def errors(self, true: str, predicted: str) -> str:
        """The most confident wrong predictions on the outer rows of the run.

        Args:
            true: Show posts of this class only; any other text: of all classes.
            predicted: As ``true``, for the predicted class.
        """
        try:
            predictions = self._run.predictions
        except MmsaError as error:
            message = f"The predictions on the outer rows are missing: {error.message}"
            return self._frame("Errors", message)
        classes = self._model.classes
        wrong = confident_errors(predictions, len(predictions.guids))
        for codes, name in ((predictions.labels, true), (predictions.predicted, predicted)):
            if name in classes:
                wrong = wrong[codes[wrong] == classes.index(name)]
        message = (
            f"{min(len(wrong), _MOST_ERRORS)} of {len(wrong)} wrong predictions on the "
            f"{len(predictions.guids)} outer rows, the most confident first."
        )
        errors = cards(wrong[:_MOST_ERRORS], predictions, self._posts)
        return self._frame("Errors", message, {"true": true, "predicted": predicted}, errors)

    def _frame(
        self,
        title: str,
        message: str,
        filters: Mapping[str, str] | None = None,
        errors: Sequence[Card] = (),
    ) -> str:
        return self._render(
            "frame.html.j2", title=title, message=message, filters=filters, errors=errors
        )

    @functools.cached_property
    def _posts(self) -> dict[str, GalleryPost]:
        try:
            samples = self._model.session.samples(self._run.record.protocol.judging)
        except (DataError, SettingsError):
            return {}
        return gallery_posts(samples)
