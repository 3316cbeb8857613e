"""Reading a source through: what is wrong is left out or mended, and counted, or is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from edgeheads.data.sample import Sample, SampleSource
from edgeheads.errors import EdgeheadsError

__all__ = ["Skipped", "read_samples"]


@dataclass
class Skipped:
    """What was wrong in a source.

    Attributes:
        reasons: why samples were left out, a text each; it names the file.
        problems: of labels that were mended or left out of samples that were used, and of the
            source itself; a text each.
    """

    reasons: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """How many samples were left out."""
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
        skipped: takes the reason of each sample that is left out, and each problem of labels.
        strict: raise the first reason or problem instead.

    Raises:
        EdgeheadsError: something is wrong and `strict` is set, or no sample at all can be used.
    """
    used = 0
    # Rendered scenes, and sources in memory, have none of their own.
    _note(getattr(source, "problems", ()), skipped, strict)
    for index in range(len(source)):
        try:
            sample = source[index]
            check(sample)
            _note(sample.problems, skipped, strict)
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


def _note(problems: Sequence[str], skipped: Skipped, strict: bool) -> None:
    if strict and problems:
        raise EdgeheadsError(problems[0])
    skipped.problems.extend(problems)
