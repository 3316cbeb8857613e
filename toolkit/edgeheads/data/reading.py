"""Reading a source through: what cannot be used is left out and counted, or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edgeheads.data.sample import Sample, SampleSource
from edgeheads.errors import EdgeheadsError

__all__ = ["Skipped", "read_samples"]


@dataclass
class Skipped:
    """What was left out of a source.

    Attributes:
        reasons: one text each; it names the file.
    """

    reasons: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """How many samples."""
        return len(self.reasons)


def read_samples(
    source: SampleSource,
    check: Callable[[Sample], None],
    skipped: Skipped,
    *,
    strict: bool = False,
) -> Iterator[Sample]:
    """Yield the samples that can be read and pass `check`.

    Args:
        source: what to read.
        check: raises EdgeheadsError for a sample that cannot be used.
        skipped: takes the reason of each sample that is left out.
        strict: raise the first reason instead.

    Raises:
        EdgeheadsError: a sample cannot be used and `strict` is set, or none at all can be.
    """
    used = 0
    for index in range(len(source)):
        try:
            sample = source[index]
            check(sample)
        except EdgeheadsError as error:
            if strict:
                raise
            skipped.reasons.append(str(error))
            continue
        used += 1
        yield sample
    if not used and skipped:
        raise EdgeheadsError(
            f"none of {len(source)} samples can be used; the first: {skipped.reasons[0]}"
        )
