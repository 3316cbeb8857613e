"""A sample at another size, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeheads.data.resize import resize_sample
from edgeheads.data.sample import Objects, Sample
from edgeheads.data.synthetic import SyntheticScenes


def test_every_label_follows_by_hand() -> None:
    """From 4x8 to 8x4: half as wide, twice as high."""
    semantic = np.arange(32, dtype=np.int32).reshape(4, 8)
    masks = semantic[None] >= 16
    sample = Sample(
        image=np.zeros((4, 8, 3), np.uint8),
        name="by hand",
        label=3,
        objects=Objects(
            np.array([[0, 2, 8, 4]], np.float32), np.array([5], np.int32), np.array([True]), masks
        ),
        semantic=semantic,
        keypoints=np.array([[6, 1, 2], [0, 0, 0]], np.float32),
        keypoint_scale=3.0,
        depth=semantic.astype(np.float32),
        normals=np.repeat(semantic[..., None], 3, axis=-1).astype(np.float32),
    )
    out = resize_sample(sample, (8, 4))
    # Each new pixel is two wide and half high in the old picture: it shows the odd columns.
    expected = np.repeat(semantic[:, 1::2], 2, axis=0)
    assert out.image.shape == (8, 4, 3)
    np.testing.assert_array_equal(out.semantic, expected)
    np.testing.assert_array_equal(out.depth, expected)
    np.testing.assert_array_equal(out.normals[..., 1], expected)
    np.testing.assert_array_equal(out.objects.masks[0], expected >= 16)
    assert out.objects.boxes.tolist() == [[0, 4, 4, 8]]
    assert out.objects.classes.tolist() == [5]
    assert out.objects.crowd.tolist() == [True]
    assert out.keypoints.tolist() == [[3, 2, 2], [0, 0, 0]]
    # The area is the same, and so is the root of it.
    assert out.keypoint_scale == pytest.approx(3.0)
    assert (out.label, out.name) == (3, "by hand")


def test_same_size_is_the_same_sample() -> None:
    scene = SyntheticScenes(1, (16, 24))[0]
    assert resize_sample(scene, (16, 24)) is scene


@pytest.mark.parametrize("size", [(20, 30), (64, 48), (96, 96)])
def test_boxes_stay_around_masks_up_to_a_pixel(size: tuple[int, int]) -> None:
    for scene in SyntheticScenes(6, (48, 48), seed=2):
        objects = resize_sample(scene, size).objects
        for mask, box in zip(objects.masks, objects.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            # An old pixel is at most two new ones.
            np.testing.assert_allclose(around, box, atol=1 + max(size) / 48)


def test_object_too_small_for_the_size_is_dropped() -> None:
    masks = np.zeros((2, 16, 16), np.bool_)
    masks[0, 4:12, 4:12] = True
    masks[1, 0, 0] = True
    boxes = np.array([[4, 4, 12, 12], [0, 0, 1, 1]], np.float32)
    objects = Objects(boxes, np.array([0, 1], np.int32), np.zeros(2, np.bool_), masks)
    sample = Sample(np.zeros((16, 16, 3), np.uint8), "speck", objects=objects)
    out = resize_sample(sample, (4, 4)).objects
    assert out.classes.tolist() == [0]
    assert out.boxes.tolist() == [[1, 1, 3, 3]]
    without_masks = replace(sample, objects=replace(objects, masks=None))
    assert len(resize_sample(without_masks, (4, 4)).objects) == 2


def test_absent_labels_stay_absent() -> None:
    out = resize_sample(Sample(np.zeros((4, 4, 3), np.uint8), "bare"), (2, 2))
    assert out == replace(out, objects=None, semantic=None, keypoints=None, depth=None)
    assert out.normals is None
    assert out.keypoint_scale is None
