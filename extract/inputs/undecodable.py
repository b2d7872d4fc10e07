"""Search for pictures that cannot be decoded, before anything is encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from mmsa_cache.data.pairs import ABSENT, BadRow, Fault, Sample, read_sample_picture
from mmsa_cache.errors import BadFileError
from mmsa_cache.native.cores import usable_cores

from .decode import LIMITS, decode

_CHUNK = 64
"""Pictures that one thread decodes at a time."""


def find_undecodable(samples: Sequence[Sample], advance: Callable[[int], None]) -> list[BadRow]:
    """Decodes every picture as small as possible: damage shows at any size.

    Args:
        samples: The samples to check.
        advance: Called with the number of pictures just decoded.

    Returns:
        The rows whose pictures cannot be used, in order.
    """
    chunks = [samples[i : i + _CHUNK] for i in range(0, len(samples), _CHUNK)]
    pool = ThreadPoolExecutor(usable_cores())
    bad_rows = []
    try:
        for chunk, bad in zip(chunks, pool.map(_check_chunk, chunks), strict=True):
            bad_rows += bad
            advance(len(chunk))
    finally:
        pool.shutdown(cancel_futures=True)
    return bad_rows


def _check_chunk(samples: Sequence[Sample]) -> list[BadRow]:
    bad_rows = []
    for sample in samples:
        if sample.image_sha256 == ABSENT:
            continue
        try:
            decode(read_sample_picture(sample), sample.picture_name, LIMITS.min_side)
        except OSError as error:
            fault = Fault("unreadable", f"{sample.picture_name}: {error.strerror}")
        except BadFileError as error:
            fault = Fault(error.reason, error.message)
        else:
            continue
        # The message names the file, so no line number is needed.
        bad_rows.append(BadRow(sample.guid, 0, (fault,), sample.text_sha256, sample.image_sha256))
    return bad_rows
