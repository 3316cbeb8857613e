"""What rendered scenes are labelled with, against rays of their own, other labels, and by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgeheads.data.sample import Sample
from edgeheads.data.scenes import layout
from edgeheads.data.scenes.labels import NAMES, label_corners, label_objects, label_surfaces
from edgeheads.data.scenes.layout import Scene, random_scene
from edgeheads.data.scenes.raycast import Camera, Hits, trace
from edgeheads.data.scenes.shapes import Room, Sphere, rotation
from edgeheads.data.synthetic import CLASS_NAMES, SyntheticScenes

BOX, SPHERE, CYLINDER = range(3)
# 64 pixels wide with a focal length of 32: a field of view of 90 degrees.
CAMERA = Camera((0.0, -1.0, 0.0), rotation(), (64, 64), math.radians(90))
ROOM = Room((-2.0, -3.0, -1.0), (2.0, 0.0, 4.0))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(SyntheticScenes(24, (96, 96), seed=3))


def traced(*spheres: Sphere) -> tuple[Scene, Hits]:
    """A room with spheres, from a level camera 1 m above the floor, 4 m from the back wall."""
    scene = random_scene(np.random.default_rng(0), CAMERA.size)
    scene = replace(scene, room=ROOM, camera=CAMERA, shapes=spheres)
    return scene, trace(CAMERA, ROOM, list(spheres), *CAMERA.pixel_centres())


def labelled_objects(sample: Sample):
    return zip(sample.objects.masks, sample.objects.boxes, sample.objects.classes, strict=True)


def test_names_of_everything() -> None:
    assert NAMES.classes == CLASS_NAMES == ("box", "sphere", "cylinder")
    assert NAMES.semantic == ("floor", "wall", "ceiling", "box", "sphere", "cylinder")
    swapped = [(NAMES.keypoints[a], NAMES.keypoints[b]) for a, b in NAMES.mirrored_keypoints]
    assert all(left.replace("left", "right") == right for left, right in swapped)
    assert len(swapped) == 2


def test_box_and_mask_of_a_sphere_by_hand() -> None:
    """Radius 0.5, 2 m ahead: its outline is at tan(asin(1/4)) * 32 = 8.26 pixels from the centre.

    Pixel centres lie half a pixel beside the axis, so 8 on each side are within.
    """
    objects = label_objects(*traced(Sphere((0.0, -1.0, 2.0), 0.5)))
    assert objects.boxes.tolist() == [[24, 24, 40, 40]]
    assert objects.classes.tolist() == [SPHERE]
    assert objects.crowd.tolist() == [False]
    assert objects.masks.sum() == pytest.approx(math.pi * 8.26**2, rel=0.03)


def test_hidden_object_is_not_listed_and_a_speck_is_crowd() -> None:
    """Behind the first sphere stands another; the third shows 3x3 of 4096 pixels."""
    objects = label_objects(
        *traced(
            Sphere((0.0, -1.0, 2.0), 0.5), Sphere((0.0, -1.0, 3.2), 0.3), Sphere((1, -1, 2.0), 0.1)
        )
    )
    assert objects.crowd.tolist() == [False, False]
    objects = label_objects(*traced(Sphere((0.0, -1.0, 2.0), 0.5), Sphere((1.0, -1.0, 2.0), 0.05)))
    assert objects.crowd.tolist() == [False, True]


def test_corners_by_hand() -> None:
    """The back wall is 4 m ahead: its corners are 2 m beside, 1 m below and 2 m above the axis."""
    corners = label_corners(traced()[0])
    assert corners.tolist() == [[16, 40, 2], [48, 40, 2], [16, 16, 2], [48, 16, 2]]


def test_corner_behind_an_object_is_hidden_and_one_out_of_view_not_labelled() -> None:
    scene, _ = traced(Sphere((-1.0, -0.5, 2.0), 0.3))
    corners = label_corners(scene)
    assert corners[:, 2].tolist() == [1, 2, 2, 2]
    turned = replace(scene, camera=replace(CAMERA, axes=rotation(yaw=math.radians(30))))
    corners = label_corners(turned)
    assert corners[[0, 2]].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert corners[[1, 3], 2].tolist() == [2, 2]


def test_surfaces_by_hand() -> None:
    """From the top of the middle column down: ceiling, back wall, floor, with a sphere between."""
    surfaces = label_surfaces(*traced(Sphere((0.0, -1.0, 2.0), 0.3)))
    names = [NAMES.semantic[number] for number in surfaces[:, 32]]
    changes = [name for name, before in zip(names, [None, *names], strict=False) if name != before]
    assert changes == ["ceiling", "wall", "sphere", "wall", "floor"]
    # The edges of the back wall, worked out above.
    assert names.index("wall") == 16
    assert names.index("floor") == 40


def test_label_is_the_class_of_the_object_that_takes_most(samples: list[Sample]) -> None:
    for sample in samples:
        areas = [mask.sum() for mask in sample.objects.masks]
        assert sample.label == sample.objects.classes[int(np.argmax(areas))]
    assert {sample.label for sample in samples} == {BOX, SPHERE, CYLINDER}


def test_boxes_are_tight_around_masks(samples: list[Sample]) -> None:
    for sample in samples:
        assert 1 <= len(sample.objects) <= 6
        for mask, (left, top, right, bottom), _ in labelled_objects(sample):
            rows, columns = np.nonzero(mask)
            assert (columns.min(), columns.max() + 1) == (left, right)
            assert (rows.min(), rows.max() + 1) == (top, bottom)


def test_masks_are_those_pixels_of_the_class_map_that_show_objects(samples: list[Sample]) -> None:
    for sample in samples:
        masks, classes = sample.objects.masks, sample.objects.classes
        assert masks.sum(axis=0).max() == 1, "no pixel is of two objects"
        np.testing.assert_array_equal(masks.any(axis=0), sample.semantic >= 3)
        for mask, kind in zip(masks, classes, strict=True):
            assert (sample.semantic[mask] == 3 + kind).all()


def test_object_class_matches_the_shape_that_is_seen(samples: list[Sample]) -> None:
    """Normals tell the solids apart: a box shows at most three, all others a continuum."""
    boxes = 0
    for sample in samples:
        for mask, _, kind in labelled_objects(sample):
            if mask.sum() < 60:
                continue
            distinct = len(np.unique(sample.normals[mask].round(3), axis=0))
            assert (distinct <= 3) == (kind == BOX)
            boxes += kind == BOX
    assert boxes > 3


def test_surfaces_face_as_they_should(samples: list[Sample]) -> None:
    """Walls stand on floors: their normals are at right angles, a ceiling's opposite a floor's."""
    for sample in samples:
        floor, wall, ceiling = (sample.normals[sample.semantic == kind] for kind in range(3))
        if len(floor):
            assert floor[0, 1] < -0.9
            np.testing.assert_allclose(wall @ floor[0], 0, atol=1e-4)
        if len(floor) and len(ceiling):
            np.testing.assert_allclose(ceiling @ floor[0], -1, atol=1e-4)


def test_visible_corner_is_where_floor_or_ceiling_and_two_walls_meet(samples: list[Sample]) -> None:
    seen = 0
    for sample in samples:
        for (x, y, how), name in zip(sample.keypoints, NAMES.keypoints, strict=True):
            if how < 2 or not (2 <= x < 94 and 2 <= y < 94):
                continue
            around = np.s_[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
            classes = {NAMES.semantic[number] for number in np.unique(sample.semantic[around])}
            if classes & set(NAMES.classes):
                continue  # an object beside it covers some of the three
            assert classes == {"wall", name.split()[-1]}
            normals = np.unique(sample.normals[around].reshape(-1, 3).round(3), axis=0)
            assert len(normals) == 3
            seen += 1
    assert seen > 10


def test_class_tables_agree_with_the_layout() -> None:
    assert [kind.__name__.lower() for kind in layout.CLASSES] == list(NAMES.classes)
