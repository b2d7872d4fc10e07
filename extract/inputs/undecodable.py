"""Which pictures cannot be decoded: tried before anything is encoded, so that bad rows can go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from mmsa_cache.data.pairs import ABSENT, BadRow, Fault, Sample, read_sample_picture
from mmsa_cache.errors import BadFileError
from mmsa_cache.native.cores import usable_cores

from .decode import LIMITS, decode

_PIECE = 64
"""Pictures that one thread tries at a time."""


def find_undecodable(samples: Sequence[Sample], advance: Callable[[int], None]) -> list[BadRow]:
    """Decodes every picture, as small as it can be: damage shows at any size.

    Args:
        samples: Rows that were read.
        advance: Called with the number of pictures just tried.

    Returns:
        The rows whose pictures cannot be used, in order.
    """
    pieces = [samples[i : i + _PIECE] for i in range(0, len(samples), _PIECE)]
    pool = ThreadPoolExecutor(usable_cores())
    found = []
    try:
        for piece, bad in zip(pieces, pool.map(_try, pieces), strict=True):
            found += bad
            advance(len(piece))
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def _try(samples: Sequence[Sample]) -> list[BadRow]:
    found = []
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
        # The message names the file, so the line is not needed.
        found.append(BadRow(sample.guid, 0, (fault,), sample.text_sha256, sample.image_sha256))
    return found
