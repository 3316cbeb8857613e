"""Splits: stated, disjoint, stable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeheads.data.formats.listing import Entry, Listing
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.data.sources import divide, open_source, split_items
from edgeheads.errors import EdgeheadsError

DATA = {
    "source": "synthetic",
    "format": "auto",
    "train_samples": 3,
    "test_samples": 2,
    "split": "tail",
    "test_fraction": 0.2,
    "depth_unit": 0.001,
    "keypoint_crops": False,
}


def test_tail_takes_the_last_ones() -> None:
    assert split_items(list("abcde"), "tail", 0.4, key=str) == (["a", "b", "c"], ["d", "e"])


def test_hash_keeps_items_where_they_are_when_others_come() -> None:
    few = [f"image{i}" for i in range(200)]
    train, test = split_items(few, "hash", 0.25, key=str)
    more_train, more_test = split_items([*few, "new1", "new2"], "hash", 0.25, key=str)
    assert set(train) <= set(more_train)
    assert set(test) <= set(more_test)
    assert sorted(train + test) == sorted(few)
    assert 30 <= len(test) <= 70


def test_synthetic_splits_have_their_counts_and_share_no_scene() -> None:
    train, test = (open_source(DATA, split, size=(32, 32), seed=0) for split in ("train", "test"))
    assert (len(train), len(test)) == (3, 2)
    assert not any(np.array_equal(a.image, b.image) for a in train for b in test)


def test_folder_errors(tmp_path: Path) -> None:
    def problem(source: Path, fraction: float = 0.2) -> str:
        data = {**DATA, "source": str(source), "test_fraction": fraction}
        with pytest.raises(EdgeheadsError) as caught:
            open_source(data, "test", size=(32, 32), seed=0)
        return str(caught.value)

    assert "nowhere does not exist; give one with --data DIR" in problem(tmp_path / "nowhere")
    assert problem(tmp_path).endswith("is empty")
    for folder in ("color", "depth"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.ones((2, 2), np.uint8)).save(tmp_path / folder / "a.png")
    assert "has 1 samples, too few for a test split: data.split tail, data.test_fraction 0.2" in (
        problem(tmp_path)
    )


def listing(**splits: str) -> Listing:
    """Return a listing of one-letter entries, given as {split: letters}."""

    def load() -> Sample:
        raise AssertionError("dividing reads nothing")

    entries = {name: [Entry(one, load) for one in letters] for name, letters in splits.items()}
    return Listing(
        {"" if name == "undivided" else name: e for name, e in entries.items()}, LabelNames()
    )


@pytest.mark.parametrize(
    ("splits", "train", "test"),
    [
        ({"undivided": "abcde"}, "abcd", "e"),
        ({"train": "abcde"}, "abcd", "e"),
        ({"train": "abcde", "val": ""}, "abcd", "e"),
        ({"train": "abc", "val": "de"}, "abc", "de"),
        ({"train": "abc", "test": "de"}, "abc", "de"),
        ({"train": "abc", "val": "d", "test": "e"}, "abcd", "e"),
        ({"test": "de"}, "", "de"),
        ({"train": "abd", "val": "cd", "test": "ae"}, "bdc", "ae"),
    ],
)
def test_splits_of_the_data_win(splits: dict[str, str], train: str, test: str) -> None:
    division = divide(listing(**splits), "tail", 0.2)
    assert "".join(entry.name for entry in division.train) == train
    assert "".join(entry.name for entry in division.test) == test


def test_groups_are_divided_each() -> None:
    def load() -> Sample:
        raise AssertionError("dividing reads nothing")

    entries = [Entry(f"{group}{i}", load, group) for i in range(5) for group in "xy"]
    division = divide(Listing({"": entries}, LabelNames()), "tail", 0.4)
    assert [entry.name for entry in division.test] == ["x3", "y3", "x4", "y4"]
    assert [entry.name for entry in division.train][:3] == ["x0", "y0", "x1"]


def test_only_a_test_set_has_nothing_to_learn_from(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "test" / name / "a.png")
    data = {**DATA, "source": str(tmp_path)}
    assert len(open_source(data, "test", size=(32, 32), seed=0)) == 2
    with pytest.raises(EdgeheadsError, match="too few for a train split: the data's own splits"):
        open_source(data, "train", size=(32, 32), seed=0)
