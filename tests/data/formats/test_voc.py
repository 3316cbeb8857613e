"""Pascal VOC: boxes counted from 1, lists of splits, and XML that cannot be trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders import HEIGHT, WIDTH, picture, voc, voc_object, voc_xml
from PIL import Image

from edgeheads.data.formats import labels as labels_module
from edgeheads.data.formats.listing import ReadOptions
from edgeheads.data.formats.voc import parse_xml, read
from edgeheads.data.sample import Sample
from edgeheads.data.sources import divide
from edgeheads.errors import EdgeheadsError

SHARED = Path(__file__).resolve().parents[3] / "../shared/data/detection_bccd_voc"


def one_sample(folder: Path, *objects: str, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Sample:
    """Write a picture with the objects, and read it."""
    picture(folder / "JPEGImages" / "a.png")
    voc_xml(folder / "Annotations" / "a.xml", *objects, size=size)
    [entry] = read(folder, ReadOptions()).splits[""]
    return entry.load()


def test_pixels_count_from_one_and_the_last_is_included(tmp_path: Path) -> None:
    sample = one_sample(
        tmp_path,
        voc_object("cat", 1, 1, WIDTH, HEIGHT),
        voc_object("ant", 5, 6, 20, 24, difficult=1),
    )
    assert sample.objects.boxes.tolist() == [[0, 0, WIDTH, HEIGHT], [4, 5, 20, 24]]
    assert sample.objects.classes.tolist() == [1, 0]
    assert sample.objects.crowd.tolist() == [False, True]
    assert sample.problems == ()


def test_boxes_that_are_wrong_are_clipped_or_left_out_and_said(tmp_path: Path) -> None:
    sample = one_sample(
        tmp_path,
        voc_object("good", 3, 3, 9, 9),
        voc_object("flat", 5, 5, 5, 5),
        voc_object("swapped", 20, 5, 10, 9),
        voc_object("outside", 100, 100, 120, 120),
        voc_object("over", 20, 10, 90, 20),
        voc_object("zero based", 0, 0, 10, 10),
        voc_object("broken", 1, 2, "three", 4),
        voc_object("endless", 1, 2, "inf", 4),
    )
    assert sample.objects.boxes.tolist() == [[2, 2, 9, 9], [19, 9, WIDTH, 20], [0, 0, 10, 10]]
    path = tmp_path / "Annotations" / "a.xml"
    assert sample.problems == (
        f"{path}: box without area, left out, 2 times; received [5.0, 5.0, 5.0, 5.0]",
        f"{path}: box outside the image, left out; received [99.0, 99.0, 120.0, 120.0]",
        f"{path}: box that reaches out of the image, clipped; received [19.0, 9.0, 90.0, 20.0]",
        f"{path}: box with a number that is not finite, left out, 2 times; "
        "received [1.0, 1.0, nan, 4.0]",
    )


def test_image_without_objects_is_legal(tmp_path: Path) -> None:
    voc(tmp_path, 1)
    picture(tmp_path / "JPEGImages" / "empty.png", seed=9)
    voc_xml(tmp_path / "Annotations" / "empty.xml")
    sample = read(tmp_path, ReadOptions()).splits[""][1].load()
    assert sample.objects.boxes.shape == (0, 4)
    assert sample.problems == ()


def test_lists_give_the_splits_and_val_is_learned_from_beside_a_test(tmp_path: Path) -> None:
    voc(tmp_path)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for name, ids in {"train": "2\n0", "val": "3", "trainval": "0\n2\n3", "test": "4\n1\n"}.items():
        (lists / f"{name}.txt").write_text(ids)
    (lists / "cat_train.txt").write_text("0 1\n2 -1\n")
    division = divide(read(tmp_path, ReadOptions()), "tail", 0.2)
    assert [entry.name for entry in division.train] == ["0", "2", "3"]
    assert [entry.name for entry in division.test] == ["1", "4"]
    assert division.rule == "the data's own splits, train and val against test"
    (lists / "test.txt").unlink()
    division = divide(read(tmp_path, ReadOptions()), "tail", 0.2)
    assert [entry.name for entry in division.test] == ["3"]


def test_trainval_is_learned_from_where_there_is_no_train(tmp_path: Path) -> None:
    voc(tmp_path)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("0\n2\n")
    (lists / "test.txt").write_text("4\n")
    division = divide(read(tmp_path, ReadOptions()), "tail", 0.2)
    assert [entry.name for entry in division.train] == ["0", "2"]
    assert [entry.name for entry in division.test] == ["4"]


def test_image_in_two_lists_is_tested_on_and_not_learned(tmp_path: Path) -> None:
    voc(tmp_path)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n1\n")
    (lists / "test.txt").write_text("0\n4\n")
    division = divide(read(tmp_path, ReadOptions()), "tail", 0.2)
    assert [entry.name for entry in division.train] == ["1"]
    assert division.problems == (
        "0 is listed in two splits, or twice; it counts once",
        "1 is listed in two splits, or twice; it counts once",
    )


def test_files_that_lack_each_other(tmp_path: Path) -> None:
    voc(tmp_path, 2)
    (tmp_path / "Annotations" / "0.xml").unlink()
    (tmp_path / "JPEGImages" / "1.png").unlink()
    listing = read(tmp_path, ReadOptions())
    [entry] = listing.splits[""]
    with pytest.raises(EdgeheadsError, match=r"0\.png has no annotation of the same name"):
        entry.load()
    assert "1.xml has no picture of the same name in" in listing.problems[0]


def test_labels_txt_decides_the_classes(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("dog\n\ncat\n")
    sample = one_sample(tmp_path, voc_object("cat", 1, 1, 5, 5), voc_object("cow", 1, 1, 5, 5))
    assert sample.objects.classes.tolist() == [1]
    assert "class that labels.txt has not, left out; received 'cow'" in sample.problems[0]
    (tmp_path / "labels.txt").write_text("dog\ndog\n")
    with pytest.raises(EdgeheadsError, match=r"labels\.txt names the class 'dog' twice"):
        read(tmp_path, ReadOptions())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_not_expanded(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "bomb.xml"
    path.write_bytes(
        f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY b "bbbb">'
        "]><annotation><object><name>&b;</name></object></annotation>".encode(encoding)
    )
    with pytest.raises(EdgeheadsError, match=r"bomb\.xml has a DOCTYPE or an entity"):
        parse_xml(path)


@pytest.mark.parametrize("content", [b"", b"<annotation>", b"\xff\xfe\x00", b"<a></b>"])
def test_broken_xml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(EdgeheadsError, match=r"a\.xml cannot be read \(.*well-formed XML"):
        parse_xml(tmp_path / "a.xml")


def test_huge_xml_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeheads.data.formats.voc._MAX_XML_BYTES", 10)
    voc_xml(tmp_path / "a.xml")
    with pytest.raises(EdgeheadsError, match="more than the 10 bytes allowed; cut the picture"):
        parse_xml(tmp_path / "a.xml")


def test_more_boxes_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "MAX_OBJECTS", 3)
    with pytest.raises(EdgeheadsError, match=r"a\.xml has 4 objects, more than the 3 allowed"):
        one_sample(tmp_path, *[voc_object("cat", 1, 1, 5, 5)] * 4)


def test_size_that_is_not_the_picture_s(tmp_path: Path) -> None:
    with pytest.raises(EdgeheadsError, match=r"a\.png has 32x24 pixels, its annotation says 20x10"):
        one_sample(tmp_path, voc_object("cat", 1, 1, 5, 5), size=(10, 20))
    assert len(one_sample(tmp_path, voc_object("cat", 1, 1, 5, 5), size=(0, 0)).objects) == 1


def test_boxes_refer_to_the_upright_picture_unless_their_size_says_otherwise(
    tmp_path: Path,
) -> None:
    def rotated() -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(
            tmp_path / "JPEGImages" / "a.png", exif=exif
        )

    def read_rotated(size: tuple[int, int]) -> Sample:
        voc_xml(tmp_path / "Annotations" / "a.xml", voc_object("cat", 1, 1, 5, 5), size=size)
        return read(tmp_path, ReadOptions()).splits[""][0].load()

    (tmp_path / "JPEGImages").mkdir()
    rotated()
    upright = read_rotated((WIDTH, HEIGHT))
    assert upright.image.shape == (WIDTH, HEIGHT, 3)
    assert upright.problems == ()
    stored = read_rotated((HEIGHT, WIDTH))
    assert stored.image.shape == (HEIGHT, WIDTH, 3)
    assert "before its EXIF rotation, which is not applied" in stored.problems[0]


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data/detection_bccd_voc is not there")
def test_real_blood_cells() -> None:
    division = divide(read(SHARED, ReadOptions()), "tail", 0.2)
    assert (len(division.train), len(division.test)) == (292, 72)
    samples = [entry.load() for entry in (*division.train, *division.test)]
    counts = np.bincount(np.concatenate([sample.objects.classes for sample in samples]))
    assert counts.tolist() == [361, 4153, 372]
    assert sum(len(sample.problems) for sample in samples) == 2
