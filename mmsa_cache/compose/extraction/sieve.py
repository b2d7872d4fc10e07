"""Which rows an extraction encodes: good ones only. Bad rows are set aside, or end it.

Rows are checked before anything is encoded: a cache without the bad rows equals, byte for byte, the
cache of data that never had them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from extract.inputs.decode import DECODER
from extract.inputs.undecodable import find_undecodable
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import progress, say
from mmsa_cache.data.pairs import BadRow
from mmsa_cache.data.scan import REPAIR_HINT, SplitScan
from mmsa_cache.data.set_aside import (
    count_reasons,
    pictures_digest,
    read_set_aside,
    write_set_aside,
)
from mmsa_cache.data.split_summary import SplitSummary
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import DataError

SHOWN_ASIDE = 20
"""Rows set aside that are named; the record names all."""


def keep_good(
    settings: Settings, surveys: Mapping[str, Callable[[], SplitScan]]
) -> dict[str, tuple[SampleTable, SplitSummary]]:
    """Sets bad rows aside, or fails with the problems of all splits at once.

    Args:
        settings: The command's settings.
        surveys: Split → what gives its rows.

    Returns:
        The samples to encode of each split, and what was kept and set aside.

    Raises:
        DataError: Something is fatal, or rows are bad and not to be skipped, or too many are.
    """
    kept, errors = {}, []
    for split, survey in surveys.items():
        try:
            kept[split] = _good_rows(settings, survey())
            _check_halves(split, kept[split][0])
        except DataError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise DataError(
            " ".join(error.message for error in errors),
            errors[0].hint,
            [problem for error in errors for problem in error.problems],
        )
    return kept


def _check_halves(split: str, samples: SampleTable) -> None:
    """Training needs posts of both kinds of half: a model cannot be told the sizes of the others.

    Raises:
        DataError: No row has a text, or none a picture.
    """
    for name, has in zip(("text", "picture"), samples.present.T, strict=True):
        if split == "train" and not has.any():
            raise DataError(
                f"No row of {split} has a {name}.",
                "Posts may lack a half, but some must have each; see mmsa check.",
            )


def _good_rows(settings: Settings, found: SplitScan) -> tuple[SampleTable, SplitSummary]:
    skip = settings.extract.on_bad == "skip"
    known = read_set_aside(settings.cache.dir, found.split).identities
    if not (skip or found.bad or (known and any(s.identity in known for s in found.samples))):
        return found.samples, found.summarize(found.samples)  # encoding says what cannot be decoded
    bad, checked = _bad_rows(settings, found)
    if not skip:
        found.raise_bad(bad)
    share, limit = len(bad) / max(1, found.rows), settings.extract.max_bad
    if share > limit:
        raise DataError(
            f"{len(bad)} of {found.rows} rows of {found.split} are bad: {share:.2%}, and at most "
            f"{limit:.2%} may be set aside.",
            "Repair the files, or raise --max-bad. mmsa check lists everything.",
            [message for row in bad for message in row.messages],
        )
    bad_guids = {row.guid for row in bad}
    samples = found.samples.drop_guids(bad_guids)
    if not samples:
        raise DataError(f"No row of {found.split} is left.", REPAIR_HINT)
    path = write_set_aside(settings.cache.dir, found.split, settings.data.folder, checked, bad)
    if bad:
        reasons = ", ".join(f"{count} {reason}" for reason, count in count_reasons(bad).items())
        say(f"{found.split}: {len(bad)} of {found.rows} rows set aside ({reasons}); see {path}:")
        for row in bad[:SHOWN_ASIDE]:
            say(f"  - {row.guid}: {'; '.join(row.messages)}")
        if len(bad) > SHOWN_ASIDE:
            say(f"  … and {len(bad) - SHOWN_ASIDE} more")
    return samples, found.summarize(samples)


def _bad_rows(settings: Settings, found: SplitScan) -> tuple[list[BadRow], str]:
    """All bad rows of a split in its order, and what identifies the attempt to decode its pictures.

    Pictures are decoded once: where an earlier command tried the same ones, its record counts.
    """
    lines = found.listing.first_line
    checked = pictures_digest(found.samples, DECODER)
    earlier = read_set_aside(settings.cache.dir, found.split).of(settings.data.folder)
    if earlier is not None and earlier.checked == checked:
        here = {sample.identity for sample in found.samples}
        broken = [row for row in earlier.rows if row.identity in here]
    else:
        title = f"{found.split}: looking for bad pictures"
        with progress(title, len(found.samples), "pictures") as advance:
            broken = find_undecodable(found.samples, lambda count: advance(count, ""))
        broken = [replace(row, line=lines[row.guid]) for row in broken]
    order = {guid: place for place, guid in enumerate(lines)}
    return sorted([*found.bad, *broken], key=lambda row: order[row.guid]), checked
