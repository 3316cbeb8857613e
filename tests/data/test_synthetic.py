"""Synthetic scenes: the ray caster against hand calculation, then the samples and their labels."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from edgeheads.data.sample import Sample
from edgeheads.data.scenes import layout, picture
from edgeheads.data.scenes.raycast import (
    Box,
    Camera,
    Cylinder,
    Room,
    Sphere,
    occluded,
    rotation,
    trace,
)
from edgeheads.data.scenes.textures import TEXTURES
from edgeheads.data.synthetic import CLASS_NAMES, MAX_DEPTH_M, MIN_DEPTH_M, SyntheticScenes
from edgeheads.errors import EdgeheadsError

LABELS = ("image", "depth", "normals", "instances", "instance_classes")
SHAPES = {
    "sphere": Sphere((0.2, -0.3, 4.0), 0.5),
    "cylinder": Cylinder((0.2, -0.3, 4.0), 0.5, 0.6),
    "box": Box((0.2, -0.3, 4.0), (0.5, 0.6, 0.4), rotation(yaw=0.6, pitch=0.3, roll=0.2)),
    "room": Room((-2.0, -1.2, -1.0), (2.0, 1.5, 5.0)),
}
ROOM = Room((-3.0, -1.4, -1.0), (3.0, 1.4, 6.0))


def level_camera(size: tuple[int, int] = (48, 64)) -> Camera:
    return Camera(position=(0.0, 0.0, 0.0), axes=rotation(), size=size)


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def digest(sample: Sample) -> str:
    parts = b"".join(np.ascontiguousarray(getattr(sample, label)).tobytes() for label in LABELS)
    return hashlib.sha256(parts + sample.name.encode()).hexdigest()


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(SyntheticScenes(24, (96, 96), seed=3))


# --- The ray caster, by hand ---


def test_sphere_depth_and_normal_by_hand():
    """A ray along z meets a sphere head on; one to 3-4-5 off its centre meets it at 53 degrees."""
    sphere = Sphere((0.0, 0.0, 5.0), 1.0)
    origins = np.array([0.0, 0.0, 0.0], np.float32)
    assert sphere.intersect(origins, column(0, 0, 1)) == pytest.approx(4.0, abs=1e-6)
    # From (0.6, 0, 0) straight ahead, the surface is at z = 5 - 0.8.
    aside = np.array([0.6, 0.0, 0.0], np.float32)
    assert sphere.intersect(aside, column(0, 0, 1)) == pytest.approx(4.2, abs=1e-6)
    normal = sphere.surface(column(0.6, 0.0, 4.2)).normals[:, 0]
    np.testing.assert_allclose(normal, [0.6, 0.0, -0.8], atol=1e-6)


def test_sphere_missed_or_behind_is_infinite():
    sphere = Sphere((0.0, 0.0, 5.0), 1.0)
    origin = np.zeros(3, np.float32)
    directions = np.array([[0, 0], [0.21, 0], [1, -1]], np.float32)
    assert np.isinf(sphere.intersect(origin, directions)).all()


def test_far_sphere_keeps_its_radius_in_float32():
    """A marble of 1 cm, 8 m away: the textbook discriminant is off by millimetres here."""
    sphere = Sphere((0.0, 0.0, 8.0), 0.01)
    offset = np.array([0.006, 0.0, 0.0], np.float32)
    assert sphere.intersect(offset, column(0, 0, 1)) == pytest.approx(7.992, abs=2e-6)


def test_floor_depth_and_normal_by_hand():
    """A pixel's ray falls (y - cy) / f per metre of depth; the floor is 1.4 m below."""
    camera = level_camera()
    x, y = np.array([32.0, 60.0], np.float32), np.array([44.0, 44.0], np.float32)
    hits = trace(camera, ROOM, [], x, y)
    expected = 1.4 * camera.focal_px / 20
    np.testing.assert_allclose(hits.depth, [expected, expected], rtol=1e-6)
    np.testing.assert_allclose(hits.surface.normals, [[0, 0], [-1, -1], [0, 0]])


def test_back_wall_depth_is_along_the_axis_not_along_the_ray():
    camera = level_camera()
    hits = trace(camera, ROOM, [], *camera.pixel_centres())
    depth = hits.depth.reshape(camera.size)
    assert depth[24, 32] == depth[24, 20] == pytest.approx(6.0, abs=1e-5)


def test_pitched_camera_depth_by_hand():
    """Looking down 30 degrees from 1.4 m, the optical axis meets the floor after 1.4 / sin 30."""
    camera = Camera((0.0, 0.0, 0.0), rotation(pitch=math.radians(30)), (48, 64))
    centre = np.array([32.0], np.float32), np.array([24.0], np.float32)
    assert trace(camera, ROOM, [], *centre).depth == pytest.approx(2.8, abs=1e-5)


def test_rotation_turns_right_then_down():
    forward = rotation(yaw=math.radians(90))[:, 2]
    np.testing.assert_allclose(forward, [1, 0, 0], atol=1e-6)
    forward = rotation(yaw=0.3, pitch=0.2)[:, 2]
    assert forward[0] > 0
    assert forward[1] == pytest.approx(math.sin(0.2))


def test_turned_box_shows_its_edge():
    """A cube of 1 m turned by 45 degrees is nearer by half its diagonal."""
    box = Box((0.0, 0.0, 4.0), (0.5, 0.5, 0.5), rotation(yaw=math.radians(45)))
    entry = box.intersect(np.array([0.1, 0.0, 0.0], np.float32), column(0, 0, 1))
    assert entry == pytest.approx(4 - math.sqrt(0.5) + 0.1, abs=1e-5)
    normal = box.surface(column(0.1, 0.0, float(entry[0]))).normals[:, 0]
    np.testing.assert_allclose(normal, [math.sqrt(0.5), 0, -math.sqrt(0.5)], atol=1e-6)


def test_cylinder_side_and_cap_by_hand():
    cylinder = Cylinder((0.0, 0.0, 3.0), radius=0.5, half_height=0.4)
    aside = np.array([0.3, 0.0, 0.0], np.float32)
    assert cylinder.intersect(aside, column(0, 0, 1)) == pytest.approx(2.6, abs=1e-6)
    above = np.array([0.1, -2.0, 3.1], np.float32)
    assert cylinder.intersect(above, column(0, 1, 0)) == pytest.approx(1.6, abs=1e-6)
    surface = cylinder.surface(np.array([[0.3, 0.1], [0.0, -0.4], [2.6, 3.1]], np.float32))
    np.testing.assert_allclose(surface.normals.T, [[0.6, 0, -0.8], [0, -1, 0]], atol=1e-6)
    assert surface.face.tolist() == [0, 1]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_nearest_shape_wins(order):
    shapes = [Sphere((0.0, 0.0, 3.0), 0.5), Box((0.0, 0.0, 5.0), (0.8, 0.8, 0.4), rotation())]
    shapes = [shapes[i] for i in order]
    camera = level_camera()
    hits = trace(camera, ROOM, shapes, *camera.pixel_centres())
    identity = hits.identity.reshape(camera.size)
    assert identity[24, 32] == 1 + order.index(0)
    assert set(np.unique(identity)) == {0, 1, 2}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_pixels_normal_is_that_of_its_back_projected_neighbours(kind):
    """Depth and normals are computed apart; the cross product of point differences ties them."""
    shape = SHAPES[kind]
    camera = Camera((0.0, 0.0, 0.0), rotation(yaw=0.02, pitch=0.1, roll=0.05), (120, 160))
    room, shapes = (shape, []) if isinstance(shape, Room) else (ROOM, [shape])
    hits = trace(camera, room, shapes, *camera.pixel_centres())
    points = hits.points.reshape(3, *camera.size)
    normals = hits.surface.normals.reshape(3, *camera.size)
    across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    numeric = np.cross(down, across, axis=0)
    numeric /= np.linalg.norm(numeric, axis=0)
    agreement = (numeric * normals[:, 1:-1, 1:-1]).sum(axis=0)
    parts = (hits.identity * 8 + hits.surface.face).reshape(camera.size)
    smooth = hits.identity.reshape(camera.size)[1:-1, 1:-1] == len(shapes)
    for shifted in (parts[1:-1, 2:], parts[1:-1, :-2], parts[2:, 1:-1], parts[:-2, 1:-1]):
        smooth &= shifted == parts[1:-1, 1:-1]
    assert smooth.sum() > 800
    assert np.median(agreement[smooth]) > 0.9999
    # Towards the outline of a round shape the differences themselves become coarse.
    assert np.quantile(agreement[smooth], 0.01) > 0.99


@pytest.mark.parametrize("kind", SHAPES)
def test_surface_coordinates_are_metric(kind):
    """A small step along v moves v by its length and u not at all; likewise along u.

    On a sphere u is metric at the equator, and a step away from it passes more meridians.
    """
    shape = SHAPES[kind]
    camera = level_camera()
    x, y = np.array([36.0, 30.0, 37.5], np.float32), np.array([20.0, 22.0, 18.5], np.float32)
    room, shapes = (shape, []) if isinstance(shape, Room) else (ROOM, [shape])
    hits = trace(camera, room, shapes, x, y)
    assert (hits.identity == len(shapes)).all()
    here, step = hits.surface, 0.01
    towards_u = shape.surface(hits.points + step * here.along_u)
    scale = np.hypot(here.normals[0], here.normals[2]) if kind == "sphere" else 1
    np.testing.assert_allclose((towards_u.u - here.u) * scale, step, atol=2e-4)
    np.testing.assert_allclose(towards_u.v - here.v, 0, atol=1e-3)
    towards_v = shape.surface(hits.points + step * here.along_v)
    np.testing.assert_allclose(towards_v.v - here.v, step, atol=2e-4)
    np.testing.assert_allclose(towards_v.u - here.u, 0, atol=1e-3)


def test_footprint_is_the_distance_between_neighbouring_pixels_on_the_surface():
    """On the floor a pixel reaches further in depth than across: foreshortening."""
    camera = level_camera()
    x, y = np.array([32.0, 33.0, 32.0], np.float32), np.array([40.0, 40.0, 40.01], np.float32)
    hits = trace(camera, ROOM, [], x, y)
    across, onward = hits.footprint_u[0], hits.footprint_v[0]
    assert across == pytest.approx(abs(hits.surface.u[1] - hits.surface.u[0]), rel=1e-3)
    assert onward == pytest.approx(100 * abs(hits.surface.v[2] - hits.surface.v[0]), rel=0.01)
    assert onward > 2 * across


def test_shadow_falls_behind_the_shape_only():
    """In order: behind it, beside it, beside it, above it, just above it, on its lit side."""
    x, y, z = [0, 0, 2, 0, 0, 0], [1.4, 1.4, 1.4, -0.5, 0.05, 0.1], [4, 2, 4, 4, 4, 4]
    points = np.array([x, y, z], np.float32)
    dark = occluded([Sphere((0.0, 0.5, 4.0), 0.4)], (0.0, -1.2, 4.0), points)
    assert dark.tolist() == [True, False, False, False, False, False]


# --- The samples ---


def test_sample_is_complete(samples):
    sample = samples[2]
    assert sample.name == "scene 2 of train, seed 3"
    shapes = {
        label: (getattr(sample, label).shape, getattr(sample, label).dtype) for label in LABELS
    }
    classes = len(sample.instance_classes)
    assert shapes == {
        "image": ((96, 96, 3), np.uint8),
        "depth": ((96, 96), np.float32),
        "normals": ((96, 96, 3), np.float32),
        "instances": ((96, 96), np.int32),
        "instance_classes": ((classes,), np.int32),
    }
    assert all(getattr(sample, label).flags.c_contiguous for label in LABELS)


def test_same_seed_same_bytes_in_any_order():
    forwards = [digest(sample) for sample in SyntheticScenes(4, (32, 48), seed=7)]
    again = SyntheticScenes(9, (32, 48), seed=7)
    assert [digest(again[index]) for index in (3, 1, 0, 2)] == [forwards[i] for i in (3, 1, 0, 2)]
    assert len(set(forwards)) == 4


def test_same_bytes_in_another_process():
    """Python's hash() of a string differs between processes; the scenes do not."""
    program = (
        "from test_synthetic import digest, SyntheticScenes;"
        "print(digest(SyntheticScenes(2, (32, 32), seed=5, split='calibration')[1]))"
    )
    paths = [*sys.path, os.path.dirname(__file__)]  # noqa: PTH120
    environment = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": os.pathsep.join(paths)}
    there = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    here = digest(SyntheticScenes(2, (32, 32), seed=5, split="calibration")[1])
    assert there.stdout.strip() == here


def test_splits_and_seeds_share_no_scene():
    sources = [
        SyntheticScenes(6, (16, 16), seed=seed, split=split)
        for seed, split in (
            (0, "train"),
            (0, "test"),
            (0, "calibration"),
            (1, "train"),
            (11, "train"),
        )
    ]
    depths = [sample.depth.tobytes() for source in sources for sample in source]
    assert len(set(depths)) == len(depths)


def test_depth_is_everywhere_and_in_range():
    """At every allowed aspect, not only square."""
    for size in ((32, 32), (64, 32), (32, 64)):
        for sample in SyntheticScenes(40, size, seed=1):
            assert sample.depth.min() > MIN_DEPTH_M
            assert sample.depth.max() < MAX_DEPTH_M
            assert np.ptp(sample.depth) > 1.0, "a scene without depth teaches none"


def test_farthest_corner_of_any_room_is_in_range():
    for number in range(300):
        scene = layout.random_scene(np.random.default_rng(number), (64, 64))
        corners = np.array(np.meshgrid(*zip(scene.room.lower, scene.room.upper, strict=True)))
        offsets = corners.reshape(3, -1).T - np.array(scene.camera.position)
        assert (offsets @ scene.camera.axes[:, 2]).max() < MAX_DEPTH_M


def test_normals_are_unit_and_face_the_camera(samples):
    y, x = np.mgrid[0:96, 0:96] + 0.5
    focal = 48 / math.tan(math.radians(30))
    rays = np.stack([(x - 48) / focal, (y - 48) / focal, np.ones_like(x)], axis=-1)
    for sample in samples:
        np.testing.assert_allclose(np.linalg.norm(sample.normals, axis=-1), 1, atol=1e-5)
        assert (sample.normals * rays).sum(axis=-1).max() < 0


def test_sample_normals_are_in_the_camera_frame(samples):
    """Depth alone, back-projected with the documented field of view, gives the same normals."""
    focal = 48 / math.tan(math.radians(30))
    y, x = np.mgrid[0:96, 0:96] + 0.5
    for sample in samples[:6]:
        depth = sample.depth.astype(np.float64)
        points = np.stack([(x - 48) / focal * depth, (y - 48) / focal * depth, depth])
        across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
        down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
        numeric = np.cross(down, across, axis=0)
        numeric /= np.linalg.norm(numeric, axis=0)
        agreement = (numeric * np.moveaxis(sample.normals, -1, 0)[:, 1:-1, 1:-1]).sum(axis=0)
        assert np.quantile(agreement, 0.3) > 0.999


def test_every_listed_instance_has_pixels_and_its_class(samples):
    classes = set()
    for sample in samples:
        found = np.unique(sample.instances)
        found = found[found > 0]
        assert found.tolist() == list(range(1, len(sample.instance_classes) + 1))
        assert 1 <= len(found) <= 6
        classes |= set(sample.instance_classes.tolist())
    assert classes == set(range(len(CLASS_NAMES)))


def test_instance_class_matches_the_shape_that_is_seen(samples):
    """Normals tell the solids apart: a box shows at most three, all others a continuum."""
    assert CLASS_NAMES == ("box", "sphere", "cylinder")
    boxes = 0
    for sample in samples:
        for number, kind in enumerate(sample.instance_classes, start=1):
            normals = sample.normals[sample.instances == number]
            if len(normals) < 60:
                continue
            distinct = len(np.unique(normals.round(3), axis=0))
            assert (distinct <= 3) == (CLASS_NAMES[kind] == "box")
            boxes += CLASS_NAMES[kind] == "box"
    assert boxes > 3


def test_objects_rest_on_something():
    """On the floor, on another object, or under the ceiling: what floats has no learnable depth."""
    kinds = {"floor": 0, "object": 0, "ceiling": 0}
    for number in range(100):
        scene = layout.random_scene(np.random.default_rng(number), (64, 64))
        halves = [layout.half_height_and_reach(shape)[0] for shape in scene.shapes]
        tops = [s.centre[1] - half for s, half in zip(scene.shapes, halves, strict=True)]
        assert 2 <= len(scene.shapes) <= 6
        for shape, half in zip(scene.shapes, halves, strict=True):
            bottom = shape.centre[1] + half
            if bottom == pytest.approx(0):
                kinds["floor"] += 1
            elif any(bottom == pytest.approx(top) for top in tops):
                kinds["object"] += 1
            else:
                assert shape.centre[1] - half == pytest.approx(scene.room.lower[1])
                kinds["ceiling"] += 1
    assert min(kinds.values()) > 5
    assert kinds["floor"] > 100


def test_images_show_something_and_are_not_burnt_out(samples):
    for sample in samples:
        assert sample.image.std() > 10
        assert 40 < sample.image.mean() < 200
        assert (sample.image == 255).mean() < 0.15
        assert (sample.image == 0).mean() < 0.15
    means = [sample.image.mean(axis=(0, 1)) for sample in samples]
    assert np.std(means, axis=0).min() > 5, "exposure and white balance vary"


def test_images_have_sensor_noise_that_the_scene_does_not_explain():
    """Two photographs of one radiance differ by a few grey levels, everywhere."""
    flat = np.full((3, 64, 64), 0.5, np.float32)
    one, other = (picture.photograph(flat, np.random.default_rng(seed)) for seed in (1, 2))
    for image in (one, other):
        noise = np.diff(image[20:44, 20:44].astype(float), axis=1).std() / math.sqrt(2)
        assert 0.3 < noise < 12
    assert (one != other).mean() > 0.5


def test_shadows_darken(monkeypatch):
    """The same scenes without occlusion are brighter, and nowhere darker."""
    scene = layout.random_scene(np.random.default_rng(4), (64, 64))
    camera = scene.camera
    hits = trace(camera, scene.room, scene.shapes, *camera.pixel_centres())
    shaded = picture.shade(scene, hits)
    monkeypatch.setattr(picture, "occluded", lambda shapes, light, points: points[0] > np.inf)
    unshaded = picture.shade(scene, hits)
    assert (shaded <= unshaded + 1e-6).all()
    assert 0.005 < (shaded < 0.98 * unshaded).any(axis=0).mean() < 0.7


@pytest.mark.parametrize("name", sorted(TEXTURES))
def test_textures_stay_in_range_and_fade_when_unresolved(name):
    """A pattern much finer than a pixel becomes its mean instead of aliasing."""
    rng = np.random.default_rng(0)
    lattice = rng.random((64, 64), dtype=np.float32)
    u, v = rng.uniform(-20, 20, (2, 4000)).astype(np.float32)
    fine, coarse = np.full_like(u, 0.01), np.full_like(u, 40.0)
    texture = TEXTURES[name]
    near, far = texture(u, v, fine, fine, lattice), texture(u, v, coarse, coarse, lattice)
    assert near.min() > -1e-3
    assert near.max() < 1 + 1e-3
    assert near.dtype == np.float32
    assert near.std() > 0.02
    assert far.std() < 0.2 * near.std()


# --- What is refused ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1}, "count must be at least 0; received count=-1"),
        ({"size": (8, 32)}, r"at least 16 pixels each; received size=\(8, 32\)"),
        ({"size": (16, 64)}, r"at most twice the other.*received size=\(16, 64\)"),
        ({"seed": -2}, "seed must be at least 0; received seed=-2"),
    ],
)
def test_wrong_arguments_are_refused_with_what_came(arguments, message):
    with pytest.raises(EdgeheadsError, match=message):
        SyntheticScenes(**{"count": 1, "size": (32, 32), **arguments})


@pytest.mark.parametrize("index", [3, -1])
def test_index_out_of_range(index):
    scenes = SyntheticScenes(3, (16, 16))
    assert len(scenes) == 3
    with pytest.raises(IndexError, match=rf"index must be in \[0, 3\); received index={index}"):
        scenes[index]


def test_no_scenes_is_a_valid_source():
    assert list(SyntheticScenes(0, (16, 16))) == []


def test_renderer_imports_neither_tensorflow_nor_pillow():
    program = (
        "import sys, edgeheads.data.synthetic;"
        "print(sorted({'tensorflow', 'keras', 'PIL', 'scipy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
