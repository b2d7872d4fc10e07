"""Finds bad rows before an extraction, which sets them aside or ends with an error.

Rows are checked before anything is encoded: the features without the bad rows equal, byte for byte,
the features of data that never had them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from extract.inputs.decode import DECODER
from extract.inputs.undecodable import find_undecodable
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import progress, say
from mmsa_cache.data.pairs import BadRow
from mmsa_cache.data.scan import SET_ASIDE_HINT, SplitScan
from mmsa_cache.data.set_aside import (
    count_reasons,
    pictures_digest,
    read_set_aside,
    write_set_aside,
)
from mmsa_cache.data.split_summary import SplitSummary
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import DataError

MAX_LISTED = 20
"""Bad rows that are listed at most; the record lists all."""


def exclude_bad_rows(
    settings: Settings, scans: Mapping[str, Callable[[], SplitScan]]
) -> dict[str, tuple[SampleTable, SplitSummary]]:
    """Sets bad rows aside, or raises the problems of all splits at once.

    Args:
        settings: The command's settings.
        scans: Split → function that reads its rows.

    Returns:
        By split, the samples to encode, and what was kept and set aside.

    Raises:
        DataError: The data cannot be read; or rows are bad and not to be skipped, or too many are.
    """
    kept, errors = {}, []
    for split, scan_split in scans.items():
        try:
            kept[split] = _exclude_from_split(settings, scan_split())
            _check_modalities(split, kept[split][0])
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


def _check_modalities(split: str, samples: SampleTable) -> None:
    """Refuses training data without any text or any picture: the sizes of features are unknown.

    Raises:
        DataError: No row has a text, or none has a picture.
    """
    for name, has in zip(("text", "picture"), samples.present.T, strict=True):
        if split == "train" and not has.any():
            raise DataError(
                f"No row of {split} has a {name}.",
                "Posts may lack a half, but some must have each; see mmsa check.",
            )


def _exclude_from_split(settings: Settings, scan: SplitScan) -> tuple[SampleTable, SplitSummary]:
    skip = settings.extract.on_bad == "skip"
    known = read_set_aside(settings.cache.dir, scan.split).identities
    if not (skip or scan.bad or (known and any(s.identity in known for s in scan.samples))):
        return scan.samples, scan.summarize(scan.samples)  # encoding reports broken pictures
    bad, checked = _find_bad_rows(settings, scan)
    if not skip:
        scan.raise_bad(bad)
    share, limit = len(bad) / max(1, scan.rows), settings.extract.max_bad
    if share > limit:
        raise DataError(
            f"{len(bad)} of {scan.rows} rows of {scan.split} are bad: {share:.2%}, and at most "
            f"{limit:.2%} may be set aside.",
            "Repair the files, or raise --max-bad. mmsa check lists everything.",
            [message for row in bad for message in row.messages],
        )
    bad_guids = {row.guid for row in bad}
    samples = scan.samples.drop_guids(bad_guids)
    if not samples:
        raise DataError(f"No row of {scan.split} is left.", SET_ASIDE_HINT)
    path = write_set_aside(settings.cache.dir, scan.split, settings.data.folder, checked, bad)
    if bad:
        reasons = ", ".join(f"{count} {reason}" for reason, count in count_reasons(bad).items())
        say(f"{scan.split}: {len(bad)} of {scan.rows} rows set aside ({reasons}); see {path}:")
        list_bad_rows(bad)
    return samples, scan.summarize(samples)


def _find_bad_rows(settings: Settings, scan: SplitScan) -> tuple[list[BadRow], str]:
    """Finds all bad rows of a split.

    Pictures that an earlier command has tried to decode are not decoded again.

    Returns:
        The rows in the order of the split, and a digest of the pictures and the decoder.
    """
    lines = scan.listing.first_line
    checked = pictures_digest(scan.samples, DECODER)
    earlier = read_set_aside(settings.cache.dir, scan.split).of(settings.data.folder)
    if earlier is not None and earlier.checked == checked:
        here = {sample.identity for sample in scan.samples}
        broken = [row for row in earlier.rows if row.identity in here]
    else:
        broken = find_undecodable_pictures(scan.samples, f"{scan.split}: looking for bad pictures")
        broken = [replace(row, line=lines[row.guid]) for row in broken]
    order = {guid: index for index, guid in enumerate(lines)}
    return sorted([*scan.bad, *broken], key=lambda row: order[row.guid]), checked


def find_undecodable_pictures(samples: SampleTable, title: str) -> list[BadRow]:
    """Decodes the pictures of samples, with a progress bar; returns the rows where that fails."""
    with progress(title, len(samples), "pictures") as advance:
        return find_undecodable(samples, lambda count: advance(count, ""))


def list_bad_rows(rows: Sequence[BadRow]) -> None:
    """Tells the user the first bad rows and their problems."""
    for row in rows[:MAX_LISTED]:
        say(f"  - {row.guid}: {'; '.join(row.messages)}")
    if len(rows) > MAX_LISTED:
        say(f"  … and {len(rows) - MAX_LISTED} more")
