"""One mask for each object, in a folder for each picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders import HEIGHT, WIDTH, instance_folders, mask, picture, rectangle

from edgeheads.data.formats import labels as labels_module
from edgeheads.data.formats.instance_folders import read
from edgeheads.data.formats.listing import ReadOptions
from edgeheads.data.sample import Sample
from edgeheads.errors import EdgeheadsError

SHARED = Path(__file__).resolve().parents[3] / "../shared/data/instances_nuclei"


def first(folder: Path) -> Sample:
    return read(folder, ReadOptions()).splits[""][0].load()


def test_masks_and_the_boxes_around_them(tmp_path: Path) -> None:
    listing = read(instance_folders(tmp_path), ReadOptions())
    assert listing.names.classes == ("object",)
    sample = listing.splits[""][0].load()
    assert sample.objects.boxes.tolist() == [[2, 3, 9, 10], [12, 3, 19, 10]]
    assert np.array_equal(sample.objects.masks[0], rectangle(2, 3, 9, 10).astype(bool))
    assert sample.objects.classes.tolist() == [0, 0]


@pytest.mark.parametrize("value", [1, 5, 255])
def test_any_value_may_mark_an_object_and_soft_edges_count_by_half(
    tmp_path: Path, value: int
) -> None:
    instance_folders(tmp_path, 1)
    values = rectangle(2, 3, 9, 10, value=value)
    values[3] = np.where(values[3], max(1, value // 5), 0)
    mask(tmp_path / "id0" / "masks" / "a.png", values)
    top = 3 if value == 1 else 4
    assert first(tmp_path).objects.boxes[0].tolist() == [2, top, 9, 10]


def test_empty_masks_are_left_out_and_said(tmp_path: Path) -> None:
    instance_folders(tmp_path, 1)
    mask(tmp_path / "id0" / "masks" / "c.png", rectangle(0, 0, 0, 0))
    sample = first(tmp_path)
    assert len(sample.objects) == 2
    assert "mask without a pixel, left out" in sample.problems[0]


def test_picture_without_objects_is_legal(tmp_path: Path) -> None:
    instance_folders(tmp_path, 1)
    picture(tmp_path / "a" / "images" / "a.png")
    sample = first(tmp_path)
    assert sample.objects.masks.shape == (0, HEIGHT, WIDTH)
    assert sample.problems == ()


def test_what_is_wrong_with_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instance_folders(tmp_path, 1)
    mask(tmp_path / "id0" / "masks" / "a.png", np.ones((9, 9), np.uint8))
    with pytest.raises(EdgeheadsError, match=r"a\.png is 9x9 for an image of 32x24"):
        first(tmp_path)
    monkeypatch.setattr(labels_module, "MAX_OBJECTS", 1)
    with pytest.raises(EdgeheadsError, match="id0 has 2 objects, more than the 1 allowed"):
        first(tmp_path)
    picture(tmp_path / "id0" / "images" / "second.png")
    with pytest.raises(EdgeheadsError, match="images must hold one picture, received 2"):
        first(tmp_path)


def test_several_names_say_nothing(tmp_path: Path) -> None:
    instance_folders(tmp_path, 1)
    (tmp_path / "labels.txt").write_text("nucleus\n")
    assert read(tmp_path, ReadOptions()).names.classes == ("nucleus",)
    (tmp_path / "labels.txt").write_text("nucleus\ncell\n")
    with pytest.raises(EdgeheadsError, match="names 2 classes, but the format says nothing"):
        read(tmp_path, ReadOptions())


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data/instances_nuclei is not there")
def test_real_nuclei() -> None:
    samples = [entry.load() for entry in read(SHARED, ReadOptions()).splits[""]]
    assert len(samples) == 60
    assert sum(len(sample.objects) for sample in samples) == 1467
    assert not any(sample.problems for sample in samples)
