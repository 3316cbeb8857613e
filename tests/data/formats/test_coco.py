"""COCO JSON: boxes, masks, keypoints, and what people get wrong in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import HEIGHT, WIDTH, coco, coco_content, data_section, picture

from edgeheads.data.formats import coco as coco_module
from edgeheads.data.formats import labels as labels_module
from edgeheads.data.formats.coco import read
from edgeheads.data.formats.listing import Listing, ReadOptions
from edgeheads.data.sample import Sample
from edgeheads.data.sources import divide, open_source
from edgeheads.errors import EdgeheadsError


def listing_of(folder: Path, content: Any, **options: Any) -> Listing:
    return read(coco(folder, content), ReadOptions(**options))


def one_image(*annotations: dict[str, Any], **more: Any) -> dict[str, Any]:
    content = coco_content(1)
    content["annotations"] = [
        {"id": i, "image_id": 0, "category_id": 7, "bbox": [4, 5, 10, 8], "iscrowd": 0, **one}
        for i, one in enumerate(annotations)
    ]
    content["categories"][1].update(more)
    return content


def load(folder: Path, content: Any, **options: Any) -> Sample:
    [entry] = listing_of(folder, content, **options).splits[""]
    return entry.load()


def test_boxes_and_classes_in_the_order_of_category_ids(tmp_path: Path) -> None:
    listing = listing_of(tmp_path, coco_content())
    assert listing.names.classes == ("cat", "dog")
    sample = listing.splits[""][2].load()
    assert sample.objects.boxes.tolist() == [[4, 5, 14, 13], [5, 5, 15, 13]]
    assert sample.objects.classes.tolist() == [0, 1]
    assert sample.objects.masks is None
    assert sample.problems == ()


def test_masks_of_every_kind(tmp_path: Path) -> None:
    filled = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * 2 + 3, 4, HEIGHT * (WIDTH - 2) - 7]}
    packed = {"size": [HEIGHT, WIDTH], "counts": "c14Yf0"}
    sample = load(
        tmp_path,
        one_image(
            {"segmentation": [[4, 5, 14, 5, 14, 13, 4, 13]]},
            {"segmentation": filled, "iscrowd": 1},
            {"segmentation": packed, "bbox": None},
        ),
    )
    first, second, third = sample.objects.masks
    assert first.sum() == 80
    assert first[5:13, 4:14].all()
    assert second.sum() == 4
    assert second[3:7, 2].all()
    assert np.array_equal(third, second)
    assert sample.objects.crowd.tolist() == [False, True, False]
    # The third has no box but a mask: its own is drawn around that.
    assert sample.objects.boxes[2].tolist() == [2, 3, 3, 7]


def test_object_without_a_mask_among_others_leaves_boxes(tmp_path: Path) -> None:
    sample = load(
        tmp_path,
        one_image({"segmentation": [[4, 5, 14, 5, 14, 13]]}, {"segmentation": []}),
    )
    assert len(sample.objects) == 2
    assert sample.objects.masks is None
    assert "object without a mask, which leaves its image without any" in sample.problems[0]


def test_image_without_annotations_has_masks_of_no_object(tmp_path: Path) -> None:
    content = coco_content(2)
    content["annotations"] = [
        {**content["annotations"][0], "segmentation": [[4, 5, 14, 5, 14, 13]]}
    ]
    sample = listing_of(tmp_path, content).splits[""][1].load()
    assert sample.objects.boxes.shape == (0, 4)
    assert sample.objects.masks.shape == (0, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"category_id": 99}, "object of an unknown category id, left out; received 99"),
        ({"category_id": [7]}, "object of an unknown category id, left out; received [7]"),
        ({"bbox": [1, 2, 3]}, "object whose bbox is not four numbers, left out"),
        ({"bbox": [1, 2, 3, "4"]}, "object whose bbox is not four numbers, left out"),
        ({"bbox": [1, 2, 1e400, 4]}, "object whose bbox is not four numbers, left out"),
        ({"bbox": [1, 2, 0, 4]}, "box without area, left out; received [1.0, 2.0, 1.0, 6.0]"),
        ({"bbox": [50, 2, 9, 4]}, "box outside the image, left out"),
        ({"id": 0}, "annotation id that is there twice, the second left out; received 0"),
    ],
)
def test_bad_objects_are_left_out_and_said(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    sample = load(tmp_path, one_image({}, changes))
    assert len(sample.objects) == 1
    assert len(sample.problems) == 1
    assert f"0.png: {words}" in sample.problems[0]


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [3, 3], "counts": [9]},
        {"size": [HEIGHT, WIDTH], "counts": [5]},
        {"size": [HEIGHT, WIDTH], "counts": "~~"},
        {"size": [HEIGHT, WIDTH], "counts": {"a": 1}},
        {"size": [HEIGHT, WIDTH]},
        [[1, 2, 3]],
        [["a", 2, 3, 4, 5, 6]],
        [{"a": 1}],
        7,
    ],
)
def test_broken_masks_are_said(tmp_path: Path, segmentation: Any) -> None:
    sample = load(tmp_path, one_image({"segmentation": segmentation}))
    assert "mask that cannot be read; received" in sample.problems[0]
    assert len(sample.objects) == 1
    assert sample.objects.masks is None


def keypoints_content(*points: float, **changes: Any) -> dict[str, Any]:
    return one_image(
        {"keypoints": list(points), "num_keypoints": 2, "area": 36.0, **changes},
        keypoints=["nose", "left_eye", "right_eye"],
    )


def test_keypoint_crops(tmp_path: Path) -> None:
    content = keypoints_content(6, 7, 2, 13, 12, 1, 0, 0, 0)
    listing = listing_of(tmp_path, content, keypoint_crops=True)
    assert listing.names.keypoints == ("nose", "left_eye", "right_eye")
    assert listing.names.mirrored_keypoints == ((1, 2),)
    [entry] = listing.splits[""]
    sample = entry.load()
    # The box from (4, 5) to (14, 13), a tenth of 10x8 more on each side, to whole pixels.
    assert sample.image.shape == (14 - 4, 15 - 3, 3)
    assert sample.keypoints.tolist() == [[6.5 - 3, 7.5 - 4, 2], [13.5 - 3, 12.5 - 4, 1], [0, 0, 0]]
    assert sample.keypoint_scale == 6.0
    assert sample.name.endswith("0.png annotation 0")


def test_crop_holds_points_outside_the_box_and_ends_at_the_image(tmp_path: Path) -> None:
    content = keypoints_content(0, 0, 2, 31, 23, 2, 99, 99, 2)
    sample = load(tmp_path, content, keypoint_crops=True)
    assert sample.image.shape == (HEIGHT, WIDTH, 3)
    assert sample.keypoints[:, 2].tolist() == [2, 2, 0]
    assert "keypoint outside the image, left out; received [99.5, 99.5]" in sample.problems[0]


def test_crops_are_of_objects_with_points_that_are_no_crowd(tmp_path: Path) -> None:
    points = [6, 7, 2, 13, 12, 1, 0, 0, 0]
    content = one_image(
        {"keypoints": points, "num_keypoints": 2},
        {"keypoints": points, "num_keypoints": 0},
        {"keypoints": points, "num_keypoints": 2, "iscrowd": 1},
        {},
        keypoints=["nose", "left_eye", "right_eye"],
    )
    listing = listing_of(tmp_path, content, keypoint_crops=True)
    assert [entry.name for entry in listing.splits[""]] == ["images/0.png 0"]


def test_crops_of_data_without_keypoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeheadsError, match=r"name 0 sets of keypoints .*crops to false"):
        listing_of(tmp_path, coco_content(), keypoint_crops=True)


def test_wrong_number_of_coordinates(tmp_path: Path) -> None:
    with pytest.raises(EdgeheadsError, match="must have 9 numbers in keypoints and 4 in bbox"):
        load(tmp_path, keypoints_content(1, 2, 2), keypoint_crops=True)


@pytest.mark.parametrize("name", ["../0.png", "/etc/passwd", "a/../../b.png", "C:\\a.png", 5, None])
def test_file_names_stay_inside_the_folder(tmp_path: Path, name: object) -> None:
    content = coco_content(2)
    content["images"][0]["file_name"] = name
    listing = listing_of(tmp_path, content)
    assert [entry.name for entry in listing.splits[""]] == ["images/1.png"]
    assert "expected a relative path inside" in listing.problems[0]


def test_ids_that_come_twice_or_are_not_listed(tmp_path: Path) -> None:
    content = coco_content(3)
    content["images"].append({"id": 2, "file_name": "4.png"})
    content["annotations"].append({"id": 99, "image_id": 77, "category_id": 7})
    listing = listing_of(tmp_path, content)
    assert len(listing.splits[""]) == 3
    assert "has two images of id 2; the first counts" in listing.problems[0]
    assert (
        "annotations of 1 images that it does not list, the first of image id 77"
        in (listing.problems[1])
    )


def test_category_id_that_comes_twice(tmp_path: Path) -> None:
    content = coco_content(1)
    content["categories"].append({"id": 7, "name": "cow"})
    listing = listing_of(tmp_path, content)
    assert "has two categories of id 7; the first counts" in listing.problems[0]
    assert listing.splits[""][0].load().objects.classes.tolist() == [
        listing.names.classes.index("cat"),
        listing.names.classes.index("dog"),
    ]


def test_why_there_is_nothing_is_said(tmp_path: Path) -> None:
    content = coco_content(2)
    for image in content["images"]:
        image["file_name"] = "C:\\a.png"
    with pytest.raises(EdgeheadsError, match=r"has 0 samples, .* expected a relative path inside"):
        open_source(data_section(coco(tmp_path, content)), "train", size=(32, 32), seed=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "must have a list of records 'images', received None"),
        ({"images": [], "annotations": {}}, "a list of records 'annotations', received {}"),
        ({"images": [3], "annotations": []}, "a list of records 'images', received [3]"),
    ],
)
def test_json_that_is_not_coco(tmp_path: Path, content: Any, words: str) -> None:
    coco(tmp_path)
    (tmp_path / "annotations" / "all.json").write_text(
        json.dumps({"note": '"images": ['} if content == [] else content)
        if content
        else '{"x": "\\"images\\": []", "images": null, "annotations": []}'
    )
    with pytest.raises(EdgeheadsError) as caught:
        read(tmp_path, ReadOptions())
    assert words in str(caught.value)


def test_broken_json_is_named(tmp_path: Path) -> None:
    coco(tmp_path)
    (tmp_path / "annotations" / "all.json").write_text('{"images": [')
    with pytest.raises(EdgeheadsError, match=r"all\.json cannot be read as JSON \(Expecting"):
        read(tmp_path, ReadOptions())
    (tmp_path / "annotations" / "all.json").write_text('{"images": [' + "[" * 200_000)
    with pytest.raises(EdgeheadsError, match=r"all\.json cannot be read as JSON \("):
        read(tmp_path, ReadOptions())


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = listing_of(tmp_path, one_image({}, {}, {}))
    monkeypatch.setattr(labels_module, "MAX_OBJECTS", 2)
    with pytest.raises(EdgeheadsError, match=r"0\.png has 3 objects, more than the 2 allowed"):
        listing.splits[""][0].load()
    monkeypatch.setattr(coco_module, "_MAX_JSON_BYTES", 100)
    (tmp_path / "annotations" / "all.json").write_text(json.dumps(coco_content(4)))
    with pytest.raises(EdgeheadsError, match=r"all\.json has .* bytes, more than the 100 allowed"):
        read(tmp_path, ReadOptions())


def test_masks_that_would_fill_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = [[4, 5, 14, 5, 14, 13]]
    listing = listing_of(tmp_path, one_image(*[{"segmentation": shape}] * 3))
    monkeypatch.setattr(labels_module, "_MAX_MASK_PIXELS", 2 * HEIGHT * WIDTH)
    with pytest.raises(EdgeheadsError, match="3 masks of 32x24, more than the 1,536 pixels"):
        listing.splits[""][0].load()


def test_coco_s_own_layout(tmp_path: Path) -> None:
    """Files of several kinds for each split, and pictures in folders of the splits' names."""
    (tmp_path / "annotations").mkdir()
    for split, count in (("train", 3), ("val", 2)):
        content = coco_content(count)
        for i in range(count):
            picture(tmp_path / f"{split}2017" / f"{i}.png", seed=i + count)
        for kind in ("instances", "captions", "person_keypoints"):
            if kind == "person_keypoints":
                content["categories"][0]["keypoints"] = ["left_eye", "right_eye"]
                content["annotations"][0]["keypoints"] = [5, 6, 2, 7, 8, 2]
            path = tmp_path / "annotations" / f"{kind}_{split}2017.json"
            path.write_text(json.dumps(content))
    data = data_section(tmp_path)
    for split, count in (("train", 3), ("test", 2)):
        source = open_source(data, split, size=(32, 32), seed=0)
        assert [f"{'val' if split == 'test' else split}2017" in one.name for one in source] == (
            [True] * count
        )
    people = open_source(data | {"keypoint_crops": True}, "train", size=(32, 32), seed=0)
    assert len(people) == 1


def test_one_file_in_each_split_s_folder(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("valid", 2), ("test", 1)):
        for i in range(count):
            picture(tmp_path / split / f"{i}.png", seed=i)
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(coco_content(count)))
    division = divide(read(tmp_path, ReadOptions()), "tail", 0.2)
    assert (len(division.train), len(division.test)) == (5, 1)
    assert division.test[0].load().name == str(tmp_path / "test" / "0.png")


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    coco(tmp_path)
    (tmp_path / "annotations" / "more.json").write_text(json.dumps(coco_content()))
    with pytest.raises(EdgeheadsError, match=r"all\.json and more\.json are both for all pictures"):
        read(tmp_path, ReadOptions())
