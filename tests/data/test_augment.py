"""Augmentations keep labels true."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeheads.data.augment import AUGMENTATIONS, augment
from edgeheads.data.augment.geometry import flip, mirror, rotate, scale_crop
from edgeheads.data.augment.warp import Window, warp
from edgeheads.data.sample import IGNORED, LabelNames, Objects, Sample
from edgeheads.data.scenes.labels import NAMES
from edgeheads.data.synthetic import SyntheticScenes
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks import TASKS, get_task

SCENES = list(SyntheticScenes(4, (48, 64)))
SCENE = SCENES[0]
GEOMETRY = ("flip", "scale_crop", "rotate")
SEEDS = st.integers(0, 2**32 - 1)
CHAINS = st.lists(st.sampled_from(sorted(AUGMENTATIONS)), max_size=4)


class Always:
    """Stands for a generator whose coin always says yes."""

    def random(self) -> float:
        return 1.0


def augmented(sample: Sample, names: list[str] | tuple[str, ...], seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    return augment(sample, names, rng, NAMES, lambda: SCENES[rng.integers(len(SCENES))])


def boxed(*boxes: tuple[float, float, float, float]) -> Sample:
    """A sample of 20x10 pixels with boxes, no masks."""
    count = len(boxes)
    objects = Objects(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.arange(count, dtype=np.int32),
        np.zeros(count, np.bool_),
    )
    return Sample(np.zeros((10, 20, 3), np.uint8), "boxed", objects=objects)


def assert_same(one: Sample, other: Sample) -> None:
    for field in ("image", "semantic", "depth", "normals"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field), err_msg=field)
    if one.keypoints is not None:
        # width - (width - x) is x up to rounding.
        np.testing.assert_allclose(one.keypoints, other.keypoints, atol=1e-5)
    for field in ("boxes", "classes", "crowd", "masks"):
        np.testing.assert_array_equal(
            getattr(one.objects, field), getattr(other.objects, field), err_msg=field
        )


# --- Whatever is done to a sample, its labels stay possible ---


@settings(max_examples=60, deadline=None)
@given(SEEDS, CHAINS)
def test_labels_stay_valid(seed: int, names: list[str]) -> None:
    out = augmented(SCENE, names, seed)
    assert out.image.shape == SCENE.image.shape
    assert out.image.dtype == np.uint8
    height, width = out.image.shape[:2]
    objects = out.objects
    left, top, right, bottom = objects.boxes.T
    assert (left >= 0).all() and (top >= 0).all()  # noqa: PT018
    assert (right <= width).all() and (bottom <= height).all()  # noqa: PT018
    assert (right - left >= 1).all() and (bottom - top >= 1).all()  # noqa: PT018
    assert len(objects.classes) == len(objects.crowd) == len(objects.masks) == len(objects)
    for mask, box in zip(objects.masks, objects.boxes, strict=True):
        rows, columns = np.nonzero(mask)
        assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box.tolist()
    assert set(np.unique(out.semantic)) <= {IGNORED, *range(len(NAMES.semantic))}
    # What a mask shows is in the class map, and the other way round.
    np.testing.assert_array_equal(objects.masks.any(axis=0), out.semantic >= 3)
    if "mosaic" not in names:
        assert set(np.unique(out.depth)) <= {0, *np.unique(SCENE.depth)}
        lengths = np.linalg.norm(out.normals, axis=-1)
        np.testing.assert_allclose(lengths[lengths > 0], 1, atol=1e-4)
        x, y, seen = out.keypoints.T
        assert ((x >= 0) & (x < width) & (y >= 0) & (y < height)).all()
        assert (out.keypoints[seen == 0] == 0).all()
        assert set(seen) <= {0, 1, 2}


@settings(max_examples=40, deadline=None)
@given(SEEDS, CHAINS)
def test_same_seed_same_sample(seed: int, names: list[str]) -> None:
    assert_same(augmented(SCENE, names, seed), augmented(SCENE, names, seed))


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_another_seed_another_sample(name: str) -> None:
    images = {augmented(SCENE, [name], seed).image.tobytes() for seed in range(12)}
    assert len(images) > 1
    assert name == "flip" or len(images) > 4


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(GEOMETRY))
def test_keypoints_stay_on_their_markers(seed: int, name: str) -> None:
    """Three disks of their own colour, and a keypoint in the middle of each."""
    places = np.array([[12, 14], [50, 12], [30, 40]], np.float32)
    image = np.zeros((48, 64, 3), np.uint8)
    y, x = np.mgrid[0:48, 0:64] + 0.5
    for channel, (across, down) in enumerate(places):
        image[np.hypot(x - across, y - down) < 4, channel] = 255
    points = np.column_stack([places, np.full(3, 2)]).astype(np.float32)
    sample = Sample(image, "markers", keypoints=points)
    out = augment(sample, ["flip", name], np.random.default_rng(seed), LabelNames())
    assert out.keypoints[:, 2].any()
    for channel, (across, down, seen) in enumerate(out.keypoints):
        # What lies beside the picture is grey, without a colour.
        marker = out.image[..., channel].astype(int) - out.image.min(axis=-1) > 60
        rows, columns = np.nonzero(marker)
        whole = marker.any() and rows.min() > 0 and columns.min() > 0
        whole = whole and rows.max() < 47 and columns.max() < 63
        if not seen:
            assert not whole, "a marker in full view lost its keypoint"
            continue
        assert marker[int(down), int(across)]
        if whole:
            assert abs(columns.mean() + 0.5 - across) < 0.5
            assert abs(rows.mean() + 0.5 - down) < 0.5


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(GEOMETRY))
def test_maps_move_with_the_image(seed: int, name: str) -> None:
    """A picture whose colour says which class, and what depth, a pixel has."""
    semantic = np.kron(np.arange(12).reshape(3, 4) % 3, np.ones((16, 16))).astype(np.int32)
    colors = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)
    sample = Sample(colors[semantic], "squares", semantic=semantic, depth=semantic + np.float32(1))
    out = augmented(sample, [name], seed)
    known = out.semantic != IGNORED
    np.testing.assert_array_equal(out.depth, np.where(known, out.semantic + 1, 0))
    # Between two squares a pixel is of mixed colour, and either class is right.
    pure = (out.image.max(axis=-1) > 200) & known
    assert pure.mean() > 0.3
    np.testing.assert_array_equal(out.image.argmax(axis=-1)[pure], out.semantic[pure])
    assert (out.image[~known] == 128).all()


# --- One by one ---


def test_flip_moves_image_and_labels_together_and_mirrors_normals() -> None:
    flipped = flip(SCENE, Always(), NAMES)  # type: ignore[arg-type]
    np.testing.assert_array_equal(flipped.image, SCENE.image[:, ::-1])
    np.testing.assert_array_equal(flipped.depth, SCENE.depth[:, ::-1])
    np.testing.assert_array_equal(flipped.semantic, SCENE.semantic[:, ::-1])
    np.testing.assert_array_equal(flipped.objects.masks, SCENE.objects.masks[:, :, ::-1])
    np.testing.assert_array_equal(flipped.normals[..., 0], -SCENE.normals[:, ::-1, 0])
    np.testing.assert_array_equal(flipped.normals[..., 1:], SCENE.normals[:, ::-1, 1:])


def test_mirror_by_hand_swaps_left_and_right() -> None:
    names = LabelNames(mirrored_keypoints=((0, 1),))
    points = np.array([[2, 3, 2], [15, 4, 1], [0, 0, 0]], np.float32)
    sample = replace(boxed((1, 2, 5, 7)), keypoints=points)
    mirrored = mirror(sample, names)
    assert mirrored.objects.boxes.tolist() == [[15, 2, 19, 7]]
    assert mirrored.keypoints.tolist() == [[5, 4, 1], [18, 3, 2], [0, 0, 0]]


def test_keypoints_whose_pairs_nobody_knows_are_not_mirrored() -> None:
    unknown = LabelNames(keypoints=NAMES.keypoints)
    assert flip(SCENE, Always(), unknown) is SCENE  # type: ignore[arg-type]
    single = replace(SCENE, keypoints=SCENE.keypoints[:1])
    assert flip(single, Always(), unknown) is not single  # type: ignore[arg-type]


def test_mirrored_twice_is_the_same() -> None:
    assert_same(mirror(mirror(SCENE, NAMES), NAMES), SCENE)


def test_window_by_hand() -> None:
    """The middle of 20x10 pixels, twice as large: 5 pixels are cut off at left and right."""
    matrix = np.array([[0.5, 0, 5], [0, 0.5, 2.5]])
    sample = boxed((4, 4, 8, 6), (0, 0, 5, 9), (3, 4, 5.1, 6), (10, 0, 20, 2.6))
    sample = replace(
        sample,
        keypoints=np.array([[8, 5, 2], [2, 5, 1]], np.float32),
        keypoint_scale=3.0,
    )
    out = warp(sample, Window(matrix, (10, 20), (10, 20)))
    # The second is beside the frame; of the last two a strip of 0.2 pixels would be left.
    assert out.objects.boxes.tolist() == [[0, 3, 6, 7]]
    assert out.objects.classes.tolist() == [0]
    assert out.objects.crowd.tolist() == [False]
    assert out.keypoints.tolist() == [[6, 5, 2], [0, 0, 0]]
    assert out.keypoint_scale == pytest.approx(6.0)


@pytest.mark.parametrize(("right", "crowd"), [(10.0, False), (25.1, False), (30.2, True)])
def test_object_of_which_little_is_left_is_crowd(right: float, crowd: bool) -> None:
    """The window shows 5 pixels of its width of `right` - 5: all, 24.9 % and 19.8 %."""
    sample = replace(boxed((5, 0, right, 10)), image=np.zeros((10, 40, 3), np.uint8))
    window = Window(np.array([[1.0, 0, 0], [0, 1, 0]]), (10, 10), (10, 40))
    assert warp(sample, window).objects.crowd.tolist() == [crowd]


def test_mask_decides_what_is_left_of_an_object() -> None:
    """Its box reaches far into the window, its pixels do not."""
    mask = np.zeros((1, 10, 20), np.bool_)
    mask[0, :, 10:] = True
    mask[0, 0, 2:10] = True
    sample = boxed((2, 0, 20, 10))
    sample = replace(sample, objects=replace(sample.objects, masks=mask))
    out = warp(sample, Window(np.array([[1.0, 0, 0], [0, 1, 0]]), (10, 10), (10, 20)))
    assert out.objects.boxes.tolist() == [[2, 0, 10, 1]]
    assert out.objects.crowd.tolist() == [True]


def test_no_objects_are_no_objects_still() -> None:
    for sample in (boxed(), replace(SCENE, objects=SCENE.objects.subset(np.zeros(0, np.intp)))):
        for name in GEOMETRY:
            assert len(augmented(sample, [name], 3).objects) == 0


def test_scaling_keeps_metres_and_normals() -> None:
    for seed in range(20):
        out = scale_crop(SCENE, np.random.default_rng(seed), NAMES)
        assert set(np.unique(out.depth)) <= {0, *np.unique(SCENE.depth)}
        flat = {tuple(normal) for normal in SCENE.normals.reshape(-1, 3)} | {(0, 0, 0)}
        assert {tuple(normal) for normal in out.normals.reshape(-1, 3)} <= flat


def test_turned_normals_turn_with_the_picture() -> None:
    """Normals that all point along the x axis of the picture do so after it is turned."""
    normals = np.zeros((48, 64, 3), np.float32)
    normals[..., 0] = 1
    image = np.zeros((48, 64, 3), np.uint8)
    image[24:] = 255
    sample = Sample(image, "half", normals=normals)
    out = rotate(sample, np.random.default_rng(5), NAMES)
    nx, ny, _ = out.normals[24, 32]
    assert abs(ny) > 0.02
    # Where the bright half begins, in two columns 40 pixels apart.
    rows = [int((out.image[:, column, 0] > 200).argmax()) for column in (12, 52)]
    assert (rows[1] - rows[0]) / 40 == pytest.approx(ny / nx, abs=0.04)


def test_boxes_without_masks_are_not_turned() -> None:
    sample = boxed((1, 2, 5, 7))
    assert rotate(sample, np.random.default_rng(0), NAMES) is sample


def test_crop_never_loses_what_the_picture_is_about() -> None:
    """A keypoint and an object in opposite corners, and a class that is that of the object."""
    sample = replace(boxed((0, 0, 2, 2)), keypoints=np.array([[19.9, 9.9, 2]], np.float32), label=0)
    moved = 0
    for seed in range(100):
        out = scale_crop(sample, np.random.default_rng(seed), NAMES)
        assert out.keypoints[0, 2] == 2
        assert out.objects.crowd.tolist() == [False]
        moved += out is not sample
    assert 10 < moved < 90


def test_class_of_the_largest_object_stays_that_of_the_largest() -> None:
    for seed in range(60):
        scene = SCENES[seed % len(SCENES)]
        out = augmented(scene, ["scale_crop", "rotate"], seed)
        assert out.label == out.objects.classes[out.objects.areas().argmax()]


def test_mosaic_joins_objects_and_maps_and_drops_what_is_of_one_picture() -> None:
    colors = [np.full((48, 64, 3), grey, np.uint8) for grey in (10, 60, 110, 160)]
    four = [replace(scene, image=image) for scene, image in zip(SCENES, colors, strict=True)]
    others = iter(four[1:])
    out = augment(four[0], ["mosaic"], np.random.default_rng(0), NAMES, lambda: next(others))
    corners = [int(out.image[y, x, 0]) for y, x in ((0, 0), (0, 63), (47, 0), (47, 63))]
    assert corners == [10, 60, 110, 160]
    assert set(np.unique(out.image)) == set(corners), "no tile has a grey rim"
    assert (out.semantic != IGNORED).all()
    assert len(out.objects) >= 4
    for mask, kind in zip(out.objects.masks, out.objects.classes, strict=True):
        assert (out.semantic[mask] == 3 + kind).all()
        assert len(np.unique(out.image[mask])) == 1, "an object reaches over two tiles"
    assert (out.label, out.depth, out.normals, out.keypoints) == (None,) * 4


def test_mosaic_without_others_says_what_to_pass() -> None:
    with pytest.raises(
        EdgeheadsError, match=r"several samples together.*augment\(\.\.\., others=\)"
    ):
        augment(SCENE, ["mosaic"], np.random.default_rng(0), NAMES)


def test_mosaic_of_samples_without_masks_has_none() -> None:
    sample = boxed((0, 0, 20, 10))
    out = augment(sample, ["mosaic"], np.random.default_rng(0), NAMES, lambda: sample)
    assert out.objects.masks is None
    assert out.semantic is None
    assert len(out.objects) == 4
    # Each picture is one object, so that the four tiles are what is left of them.
    assert out.objects.areas().sum() == 200


@pytest.mark.parametrize("name", ["color", "noise", "blur"])
def test_pixels_change_and_no_label(name: str) -> None:
    out = augmented(SCENE, [name], 0)
    assert not np.array_equal(out.image, SCENE.image)
    assert np.abs(out.image.astype(int) - SCENE.image).mean() < 40
    assert replace(out, image=SCENE.image) == SCENE


def test_unknown_augmentation() -> None:
    with pytest.raises(EdgeheadsError, match=r"unknown augmentation 'flop'; did you mean flip\?"):
        augment(SCENE, ["flop"], np.random.default_rng(0), NAMES)


# --- What the tasks list ---


def written(task: str) -> bool:
    module = TASKS[task].partition(":")[0]
    return importlib.util.find_spec(f"edgeheads.tasks.{module}") is not None


@pytest.mark.parametrize("task", [task for task in TASKS if task != "multi-task"])
def test_samples_still_suit_the_task_after_its_augmentations(task: str) -> None:
    if not written(task):
        pytest.skip("the task has no room")
    room = get_task(task)
    check: Callable[[Sample], None] = room.check
    for seed in range(20):
        check(augmented(SCENES[seed % len(SCENES)], room.augmentations, seed))


@pytest.mark.parametrize("task", ["depth", "normals"])
def test_tasks_that_know_no_intrinsics_do_not_zoom(task: str) -> None:
    assert not {"scale_crop", "rotate", "mosaic"} & set(get_task(task).augmentations)
