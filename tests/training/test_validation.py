"""The validation split, and when it is looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("pydantic")

from edgeheads.data.sample import Sample
from edgeheads.data.sources import split_items
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks import get_task
from edgeheads.training.validation import (
    judged_metric,
    split_samples,
    validation_steps,
)


def samples(count: int, folder: str = "a") -> list[Sample]:
    image = np.zeros((4, 4, 3), np.uint8)
    return [Sample(image, f"{folder}/{index:04}.png") for index in range(count)]


def names(chosen: list[Sample]) -> list[str]:
    return [Path(sample.name).name for sample in chosen]


def test_split_holds_back_about_its_share_and_loses_nothing() -> None:
    train, held_back = split_samples(samples(1000), 0.2)
    assert 150 < len(held_back) < 250
    assert sorted(names(train) + names(held_back)) == names(samples(1000))


def test_a_sample_stays_where_it_is_when_others_come_or_data_moves() -> None:
    _, few = split_samples(samples(200), 0.2)
    _, many = split_samples(samples(300, folder="elsewhere"), 0.2)
    assert names(few) == [name for name in names(many) if name < "0200"]


def test_a_test_split_by_the_same_names_leaves_samples_to_validate_on() -> None:
    """Another checksum decides: of what is left of a hash split, a fifth is held back again."""
    left, _ = split_items(samples(1000), "hash", 0.2, key=lambda sample: Path(sample.name).name)
    _, held_back = split_samples(left, 0.2)
    assert 100 < len(held_back) < 220


def test_without_a_fraction_everything_is_trained_on() -> None:
    train, held_back = split_samples(samples(3), 0.0)
    assert (len(train), len(held_back)) == (3, 0)


def test_a_split_that_leaves_nothing_is_an_error() -> None:
    with pytest.raises(EdgeheadsError, match=r"validation_fraction 1e-06 leaves 3 of 3 samples"):
        split_samples(samples(3), 1e-6)


def test_validations_are_evenly_spread_and_end_with_the_last_step() -> None:
    assert validation_steps(10, 4) == {2, 5, 8, 10}
    assert validation_steps(3, 10) == {1, 2, 3}


def test_the_judge_is_the_first_metric_that_files_are_held_to() -> None:
    assert judged_metric(get_task("depth")).name == "abs_rel"
