"""What holds for every format in the table."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from folders import FOLDERS, data_section, picture

from edgeheads.data.formats import FORMATS, find_format, get_format
from edgeheads.data.formats.listing import ReadOptions, split_of
from edgeheads.data.reading import Skipped, read_samples
from edgeheads.data.sample import Sample
from edgeheads.data.sources import open_source
from edgeheads.errors import EdgeheadsError


def test_every_format_is_tested_here() -> None:
    assert set(FOLDERS) == set(FORMATS)


def same(one: object, other: object) -> bool:
    if hasattr(one, "__dataclass_fields__"):
        pairs = ((getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
        return all(same(*pair) for pair in pairs)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return one == other


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_is_taken_for_its_own_format_and_no_other(name: str, tmp_path: Path) -> None:
    folder = FOLDERS[name](tmp_path)
    assert [one for one in FORMATS if get_format(one).detect(folder)] == [name]
    assert find_format(folder) == name


@pytest.mark.parametrize("name", FORMATS)
def test_splits_share_names_and_no_picture_and_reading_again_gives_the_same(
    name: str, tmp_path: Path
) -> None:
    data = data_section(FOLDERS[name](tmp_path))
    train, test = (open_source(data, split, size=(32, 32), seed=0) for split in ("train", "test"))
    assert train.names == test.names
    assert len(train) == 4 * len(test)
    assert not any(np.array_equal(a.image, b.image) for a in train for b in test)
    assert same(train[0], train[0])
    assert same(open_source(data, "train", size=(32, 32), seed=0)[1], train[1])


@pytest.mark.parametrize("name", FORMATS)
def test_samples_keep_the_types_and_shapes_that_are_promised(name: str, tmp_path: Path) -> None:
    source = open_source(data_section(FOLDERS[name](tmp_path)), "train", size=(32, 32), seed=0)
    for sample in source:
        assert_valid(sample)
        assert sample.problems == ()


def assert_valid(sample: Sample) -> None:
    height, width = sample.image.shape[:2]
    assert sample.image.dtype == np.uint8
    assert sample.image.shape[2] == 3
    if sample.objects is not None:
        boxes = sample.objects.boxes
        assert (boxes.dtype, boxes.shape[1:]) == (np.float32, (4,))
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()
        assert sample.objects.classes.dtype == np.int32
        assert sample.objects.crowd.dtype == bool
        if sample.objects.masks is not None:
            assert sample.objects.masks.shape == (len(boxes), height, width)
            assert sample.objects.masks.dtype == bool
    if sample.semantic is not None:
        assert (sample.semantic.shape, sample.semantic.dtype) == ((height, width), np.int32)
    if sample.keypoints is not None:
        assert sample.keypoints.dtype == np.float32


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_picture_costs_that_sample_only(name: str, tmp_path: Path) -> None:
    folder = FOLDERS[name](tmp_path)
    broken = next(
        path for path in sorted(folder.rglob("*.png")) if path.parent.name not in ("masks", "depth")
    )
    broken.write_bytes(broken.read_bytes()[:60])
    source = open_source(data_section(folder), "train", size=(32, 32), seed=0)
    skipped = Skipped()
    read = list(read_samples(source, lambda _: None, skipped))
    assert (len(read), len(skipped)) == (len(source) - 1, 1)
    assert str(broken) in skipped.reasons[0]
    with pytest.raises(EdgeheadsError, match="cannot be read"):
        list(read_samples(source, lambda _: None, Skipped(), strict=True))


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(EdgeheadsError, match="expected"):
        get_format(name).read(tmp_path, ReadOptions())


def test_two_formats_at_once_are_for_the_user_to_choose(tmp_path: Path) -> None:
    FOLDERS["voc"](tmp_path)
    FOLDERS["rgbd"](tmp_path)
    with pytest.raises(EdgeheadsError) as caught:
        find_format(tmp_path)
    assert "looks like voc and rgbd at once; say which it is with --format" in str(caught.value)
    assert "voc: DIR/JPEGImages/*.jpg, DIR/Annotations/*.xml" in str(caught.value)
    data = data_section(tmp_path, format="voc")
    assert open_source(data, "train", size=(32, 32), seed=0).names.classes == ("cat", "dog")


def test_no_format_says_what_each_expects(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    with pytest.raises(EdgeheadsError, match="is in no known format") as caught:
        find_format(tmp_path)
    assert all(f"{name}: " in str(caught.value) for name in FORMATS)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train2017", "train"),
        ("instances_val2017", "val"),
        ("valid", "val"),
        ("Testing", "test"),
        ("strain", ""),
        ("latest", ""),
        ("images", ""),
    ],
)
def test_names_that_say_a_split(name: str, split: str) -> None:
    assert split_of(name) == split


def test_readers_need_neither_tensorflow_nor_the_recipe_s_yaml() -> None:
    script = (
        "import sys; from edgeheads.data.formats import FORMATS, get_format; "
        "import edgeheads.data.sources; [get_format(name) for name in FORMATS]; "
        "print(sorted({'keras', 'tensorflow', 'pydantic', 'yaml', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"
