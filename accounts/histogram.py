"""Times to first token as counts in buckets, so that hours can be added up and still tell a median.

Bucket 0 ends at 10 ms, each further one at 2^(1/4) times the one before: a figure read from it is within 9 % of the true one.
The text form is "bucket:count bucket:count …", ascending, without empty buckets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

FIRST_MS = 10.0
STEPS_PER_OCTAVE = 4
LAST_BUCKET = 80  # about 2.9 hours

Counts = dict[int, int]


def bucket_of(milliseconds: float) -> int:
    if milliseconds <= FIRST_MS:
        return 0
    return min(LAST_BUCKET, math.ceil(STEPS_PER_OCTAVE * math.log2(milliseconds / FIRST_MS)))


def encode(counts: Mapping[int, int]) -> str:
    return " ".join(f"{bucket}:{count}" for bucket, count in sorted(counts.items()) if count)


def decode(text: str) -> Counts:
    """The inverse of ``encode``."""
    pairs = (pair.split(":") for pair in text.split())
    return {int(bucket): int(count) for bucket, count in pairs}


def merge(many: Iterable[Mapping[int, int]]) -> Counts:
    total: Counts = {}
    for counts in many:
        for bucket, count in counts.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def quantile(counts: Mapping[int, int], share: float) -> int | None:
    """The time in ms within which ``share`` (0 to 1) of the requests stayed, or None without any.

    It is the geometric middle of the bucket that it falls in.
    """
    number = sum(counts.values())
    if not number:
        return None
    wanted = max(1, math.ceil(share * number))
    for bucket in sorted(counts):
        wanted -= counts[bucket]
        if wanted <= 0:
            return round(FIRST_MS * 2 ** (max(0.0, bucket - 0.5) / STEPS_PER_OCTAVE))
    raise AssertionError("unreachable: the counts add up to their number")
