"""Image-text pairs on disk: from the rows of a data folder to samples.

Which rows there are, in which layout, ``layouts`` says. Reading collects every problem before it
gives up. A row whose text or picture cannot be used is a bad row, which may be set aside; what is
wrong with a label file, or a path that leads out of the folder, ends everything.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.layouts.listing import UNLABELLED, Listing, raise_problems
from mmsa_cache.data.layouts.rows import classes_of, list_rows
from mmsa_cache.errors import DataError

from .files import strip_text, text_key
from .intake import Intake
from .pairs import BadRow, PairReader, Sample, picture_bytes

SET_ASIDE = (
    "Repair the files or remove their rows from the label file; or set them aside: "
    "mmsa extract --on-bad skip. mmsa check lists everything."
)


@dataclass(frozen=True, slots=True)
class Survey:
    """One split as it was found, in the order of its label file."""

    split: str
    listing: Listing
    samples: list[Sample]
    bad: list[BadRow]
    replaced: frozenset[str]
    """Rows of whose texts some bytes were replaced, not being valid in the encoding."""

    @property
    def rows(self) -> int:
        """Rows, good and bad."""
        return len(self.samples) + len(self.bad)

    def raise_bad(self, bad: Sequence[BadRow]) -> None:
        """Ends with bad rows, if there are any.

        Raises:
            DataError: Names every one of them.
        """
        messages = [message for row in bad for message in row.messages]
        raise_problems(messages, self.listing.folder, SET_ASIDE)

    def intake(self, samples: Sequence[Sample]) -> Intake:
        """What was kept, merged and dropped.

        Args:
            samples: Those that are kept; the other rows were set aside.
        """
        count = Counter(sample.label for sample in samples)
        tags: dict[int | None, str] = {**dict(enumerate(self.listing.classes)), None: UNLABELLED}
        kept = {tag: count[label] for label, tag in tags.items() if count[label]}
        aside = self.rows - len(samples)
        replaced = tuple(s.guid for s in samples if s.guid in self.replaced)
        listing = self.listing
        counts = (listing.merged, listing.dropped, aside)
        return Intake(listing.layout, self.split, kept, *counts, replaced)


def survey(data: DataSettings, split: str) -> Survey:
    """Reads one split in the order of its label file (unlabelled pairs: by guid).

    Texts are read completely; pictures are hashed and their format is checked by content, but they
    are decoded only by stage one.

    Args:
        data: The data folder, in any layout of ``layouts``, and how its texts are read.
        split: ``train`` or ``test``.

    Raises:
        SettingsError: No data folder is set.
        DataError: Something is wrong with the label file, or a path leads out of the folder; every
            problem of the label file and of the pairs is named.
    """
    listing = list_rows(data, split, classes_of(data))
    reader = PairReader(listing, data)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(reader.read, listing.rows))
    bad = [result for result in results if isinstance(result, BadRow)]
    if listing.problems or any(row.fatal for row in bad):
        messages = [message for row in bad for message in row.messages]
        where = listing.source if listing.problems else listing.folder
        raise_problems([*listing.problems, *messages], where)
    samples = [result for result in results if isinstance(result, Sample)]
    return Survey(split, listing, samples, bad, frozenset(reader.replaced))


def single_sample(text: str | None, image_path: Path | None) -> Sample:
    """Makes a sample of one text and one picture file, for prediction; one may be missing.

    Raises:
        DataError: The picture is missing or not an allowed format, or the text is empty.
    """
    if text is not None and not strip_text(text):
        raise DataError("The text is empty.", "Leave --text out to predict from a picture alone.")
    picture = ""
    if image_path is not None:
        if not image_path.is_file():
            raise DataError(
                f"There is no picture {image_path}.", "Give an existing file with --image."
            )
        data = picture_bytes(image_path.parent.resolve(), image_path.name)
        picture = hashlib.sha256(data).hexdigest()
    text = strip_text(text or "")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Sample("pair", None, text, image_path, digest, picture, text_key(text))
