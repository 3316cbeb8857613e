"""What is wrong is counted, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgeheads.data.formats.listing import Entry
from edgeheads.data.reading import Skipped, read_samples
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.data.sources import ListedSamples
from edgeheads.errors import EdgeheadsError


def good(name: str, *problems: str) -> Sample:
    return Sample(np.zeros((2, 2, 3), np.uint8), name, label=0, problems=problems)


def bad() -> Sample:
    raise EdgeheadsError("b.jpg cannot be read")


SOURCE = ListedSamples(
    [
        Entry("a", lambda: good("a")),
        Entry("b", bad),
        Entry("c", lambda: good("c", "c: box left out")),
        Entry("d", lambda: good("unwanted", "unwanted: of a sample that is not used")),
    ],
    LabelNames(classes=("x",)),
    ["two rows for one picture"],
)


def check(sample: Sample) -> None:
    if sample.name == "unwanted":
        raise EdgeheadsError("d.jpg has no label")


def test_bad_samples_are_skipped_and_problems_noted() -> None:
    skipped = Skipped()
    assert [one.name for one in read_samples(SOURCE, check, skipped)] == ["a", "c"]
    assert skipped.reasons == ["b.jpg cannot be read", "d.jpg has no label"]
    assert skipped.problems == ["two rows for one picture", "c: box left out"]
    assert len(skipped) == 2


@pytest.mark.parametrize(
    ("entries", "problems", "words"),
    [
        ([Entry("b", bad)], [], "b.jpg cannot be read"),
        ([Entry("c", lambda: good("c", "c: box left out"))], [], "c: box left out"),
        ([Entry("a", lambda: good("a"))], ["odd folder"], "odd folder"),
    ],
)
def test_strict_refuses_the_first_of_any_kind(
    entries: list[Entry], problems: list[str], words: str
) -> None:
    source = ListedSamples(entries, LabelNames(), problems)
    with pytest.raises(EdgeheadsError, match=f"^{words}$"):
        list(read_samples(source, check, Skipped(), strict=True))


def test_a_source_of_which_nothing_can_be_used_is_an_error() -> None:
    source = ListedSamples([Entry("b", bad)] * 3, LabelNames())
    with pytest.raises(EdgeheadsError, match=r"none of 3 samples can be used; the first: b\.jpg"):
        list(read_samples(source, check, Skipped()))
