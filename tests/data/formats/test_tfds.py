"""Data sets by name, with a stand-in for the library that has them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from folders import data_section

from edgeheads.data.sources import open_source
from edgeheads.errors import EdgeheadsError, MissingDependencyError

CLASSES = SimpleNamespace(names=["cat", "dog"])
GREY = np.full((4, 6, 1), 7, np.uint8)


class Features:
    """A mapping as TFDS has it: without `get`."""

    def __init__(self, features: dict[str, Any]) -> None:
        self._features = features

    def __getitem__(self, key: str) -> Any:
        return self._features[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._features)

    def __contains__(self, key: str) -> bool:
        return key in self._features


class Builder:
    """The part of a TFDS builder that is used."""

    def __init__(self, features: dict[str, Any], splits: dict[str, list[dict[str, Any]]]) -> None:
        self.info = SimpleNamespace(features=Features(features), splits=splits)
        self.prepared = False

    def download_and_prepare(self) -> None:
        self.prepared = True

    def as_data_source(self, split: str) -> list[dict[str, Any]]:
        assert self.prepared
        return self.info.splits[split]


def install(monkeypatch: pytest.MonkeyPatch, builder: Builder) -> dict[str, Any]:
    asked: dict[str, Any] = {}

    def make(name: str, **options: Any) -> Builder:
        asked.update(name=name, **options)
        if name == "nope":
            raise ValueError("no such data set")
        return builder

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", SimpleNamespace(builder=make))
    return asked


def test_classification(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [{"image": GREY, "label": np.int64(i % 2)} for i in range(5)]
    secret = [{"image": GREY, "label": np.int64(-1)}]
    features = {"image": None, "label": CLASSES}
    builder = Builder(features, {"train": examples, "test": secret, "unlabeled": examples})
    asked = install(monkeypatch, builder)
    train = open_source(data_section("tfds:pets/small"), "train", size=(32, 32), seed=0)
    assert asked == {"name": "pets/small", "file_format": "array_record"}
    assert train.names.classes == ("cat", "dog")
    assert [sample.label for sample in train] == [0, 1, 0, 1, 0]
    assert train[1].image.shape == (4, 6, 3)
    assert train[1].name == "tfds:pets/small train 1"
    test = open_source(data_section("tfds:pets"), "test", size=(32, 32), seed=0)
    with pytest.raises(EdgeheadsError, match="tfds:pets test 0 has no label"):
        test[0]


def test_detection_has_y_first_and_shares_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = {
        "bbox": np.array([[0.25, 0.5, 1, 1], [0.5] * 4, [0, 0, 1, 1]], np.float32),
        "label": np.array([1, 0, 5]),
        "is_crowd": np.array([True, False, False]),
    }
    inner = Features({"bbox": None, "label": CLASSES})
    features = {"image": None, "objects": SimpleNamespace(feature=inner)}
    examples = [{"image": np.zeros((4, 6, 3), np.uint8), "objects": objects}] * 5
    install(monkeypatch, Builder(features, {"train": examples}))
    source = open_source(data_section("tfds:shapes"), "test", size=(32, 32), seed=0)
    assert len(source) == 1
    sample = source[0]
    assert sample.objects.boxes.tolist() == [[3, 1, 6, 4]]
    assert sample.objects.classes.tolist() == [1]
    assert sample.objects.crowd.tolist() == [True]
    assert (
        "tfds:shapes train 4: object of an unknown class, left out; received 5"
        in (sample.problems[0])
    )
    assert "tfds:shapes train 4: box without area, left out" in sample.problems[1]


def test_what_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Builder({"text": None}, {"train": []}))
    with pytest.raises(EdgeheadsError, match="tfds:x has the features text; expected tfds:NAME"):
        open_source(data_section("tfds:x"), "train", size=(32, 32), seed=0)
    with pytest.raises(EdgeheadsError, match=r"cannot be prepared \(no such data set\)"):
        open_source(data_section("tfds:nope"), "train", size=(32, 32), seed=0)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "edgeheads\[tfds\]"'):
        open_source(data_section("tfds:x"), "train", size=(32, 32), seed=0)
