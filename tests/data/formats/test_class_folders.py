"""Class folders: classes by name, splits by folder, and every stretch holds all classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from folders import class_folders, picture

from edgeheads.data.formats.class_folders import detect, read
from edgeheads.data.formats.listing import ReadOptions
from edgeheads.data.sources import divide
from edgeheads.errors import EdgeheadsError

SHARED = Path(__file__).resolve().parents[3] / "../shared/data/classification_cifar10"


def test_classes_take_turns_and_are_divided_each(tmp_path: Path) -> None:
    """The first images of a training set calibrate int8: they must not be of one class."""
    listing = read(class_folders(tmp_path), ReadOptions())
    assert listing.names.classes == ("cat", "dog")
    assert [entry.name for entry in listing.splits[""]][:3] == [
        "cat/0.png",
        "dog/0.png",
        "cat/1.png",
    ]
    division = divide(listing, "tail", 0.2)
    assert [entry.name for entry in division.test] == ["cat/4.png", "dog/4.png"]
    assert [entry.load().label for entry in division.test] == [0, 1]
    assert division.rule == "data.split tail, data.test_fraction 0.2, in each class"


def test_folders_of_splits(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", 3)
    class_folders(tmp_path / "val", 1)
    listing = read(tmp_path, ReadOptions())
    division = divide(listing, "tail", 0.2)
    assert [entry.name for entry in division.test] == ["val/cat/0.png", "val/dog/0.png"]
    assert len(division.train) == 6
    picture(tmp_path / "val" / "cow" / "a.png")
    with pytest.raises(EdgeheadsError, match=r"has a class 'cow' that .*train has not"):
        read(tmp_path, ReadOptions())


def test_training_folder_alone_is_divided(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", 5)
    division = divide(read(tmp_path, ReadOptions()), "tail", 0.2)
    assert (len(division.train), len(division.test)) == (8, 2)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        picture(tmp_path / name / "a.png")
    assert detect(tmp_path)
    assert read(tmp_path, ReadOptions()).names.classes == ("bus", "train")


def test_what_is_no_picture_does_not_count(tmp_path: Path) -> None:
    class_folders(tmp_path, 1)
    (tmp_path / "cat" / "._0.png").write_bytes(b"\0")
    (tmp_path / "cat" / "notes.txt").write_text("")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "empty").mkdir()
    listing = read(tmp_path, ReadOptions())
    assert len(listing.splits[""]) == 2
    assert listing.names.classes == ("cat", "dog", "empty")
    assert "empty holds no pictures; expected .jpg" in listing.problems[0]


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data/classification_cifar10 not there")
def test_real_pictures() -> None:
    division = divide(read(SHARED, ReadOptions()), "tail", 0.2)
    assert (len(division.train), len(division.test)) == (1500, 500)
    assert sorted(entry.load().label for entry in division.train[:20]) == sorted([*range(10)] * 2)
