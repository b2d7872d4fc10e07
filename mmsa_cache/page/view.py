"""What ``mmsa serve`` shows, as HTML. Data gets into it through jinja2's autoescape alone."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmsa_cache.compose.pages.shell import printable
from mmsa_cache.compose.pages.thumbnails import Thumbnail, thumbnail
from mmsa_cache.compose.predict.predictor import Predictor
from mmsa_cache.compose.report.attention import Maps
from mmsa_cache.compose.report.charts import class_colours
from mmsa_cache.compose.report.gallery import Card, GalleryPost, cards, confident_errors
from mmsa_cache.compose.report.report import PAGE
from mmsa_cache.compose.report.templates import report_templates
from mmsa_cache.errors import BadFileError, DataError, MmsaError, SettingsError
from mmsa_cache.files.untrusted import open_plain
from mmsa_cache.runs.folder import RunFolder

from .answers import Answer, Explanation
from .guard import Limits
from .nearest import Neighbour

_HERE = Path(__file__).parent
_STYLES = ("shell.css", "report.css", "page.css")
_ERRORS = 24
"""Wrong predictions that are shown."""
_THUMBNAIL = 160
"""Longest side of a neighbour's picture, in pixels."""
_MOST_CHARS = 300
"""Characters of a neighbour's text that are shown."""
_PIECE = 1 << 16
"""Bytes of a report that are in memory for each who reads it."""


class View:
    """The pages of a run or an export."""

    def __init__(self, run: RunFolder, model: Predictor, limits: Limits, url: str) -> None:
        self.name, self._run, self._model = run.name, run, model
        self._templates = report_templates(_HERE)
        self.style = "\n".join(self._plain(name) for name in _STYLES)
        self.script, self.icon = self._plain("page.js"), self._plain("icon.svg")
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

    def _plain(self, name: str) -> str:
        return self._templates.get_template(name).render()

    def _render(self, template: str, **values: object) -> str:
        return printable(self._templates.get_template(template).render(self._common | values))

    def page(
        self,
        text: str | None = None,
        answer: Answer | None = None,
        explanation: Explanation | None = None,
        error: MmsaError | None = None,
    ) -> str:
        """The page, with what is said of a post where one was sent.

        Args:
            text: Of the post.
            answer: What is predicted.
            explanation: What it was read as.
            error: Why there is no answer.
        """
        nearest = [] if explanation is None else explanation.nearest
        return self._render(
            "index.html.j2",
            text=text or "",
            answer=answer,
            explanation=explanation,
            nearest=[(found, _picture(found)) for found in nearest],
            most_chars=_MOST_CHARS,
            error=error,
        )

    def report(self) -> Iterator[bytes]:
        """The run's report piece by piece, or a page that says why there is none."""
        try:
            with open_plain(self._run.place(PAGE)) as file:
                while piece := file.read(_PIECE):
                    yield piece
            return
        except FileNotFoundError:
            said = "There is no report here. A run has one; an export of it has none."
        except (MmsaError, OSError, ValueError) as error:
            said = f"The report cannot be read: {error}"
        yield self._frame("Report", said).encode()

    def errors(self, true: str, predicted: str) -> str:
        """The most confident wrong predictions on the rows that judged the run.

        Args:
            true: Only posts of this class; others than the classes' names: of all.
            predicted: The same of the class that is predicted.
        """
        try:
            found = self._run.predictions
        except MmsaError as error:
            said = f"The predictions on the outer rows are not here: {error.message}"
            return self._frame("Errors", said)
        codes = {name: code for code, name in enumerate(self._model.classes)}
        wrong = confident_errors(found, len(found.guids))
        for of, name in ((found.labels, true), (found.predicted, predicted)):
            if name in codes:
                wrong = wrong[of[wrong] == codes[name]]
        said = (
            f"{min(len(wrong), _ERRORS)} of {len(wrong)} wrong predictions on the "
            f"{len(found.guids)} rows that judged the run, the most confident first."
        )
        shown = cards(wrong[:_ERRORS], found, self._posts, Maps(""))
        return self._frame("Errors", said, {"true": true, "predicted": predicted}, shown)

    def _frame(
        self,
        title: str,
        said: str,
        chosen: Mapping[str, str] | None = None,
        errors: Sequence[Card] = (),
    ) -> str:
        return self._render("frame.html.j2", title=title, said=said, chosen=chosen, errors=errors)

    @functools.cached_property
    def _posts(self) -> dict[str, GalleryPost]:
        try:
            samples = self._model.session.samples(self._run.record.protocol.judging)
        except (DataError, SettingsError):
            return {}
        return {post.guid: GalleryPost(post.text or "", post.image_path) for post in samples}


def _picture(post: Neighbour) -> Thumbnail | None:
    try:
        return None if post.image is None else thumbnail(post.image, _THUMBNAIL)
    except (OSError, ValueError, BadFileError):
        return None
