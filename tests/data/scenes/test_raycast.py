"""The ray caster against hand calculation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeheads.data.scenes.raycast import Camera, occluded, trace
from edgeheads.data.scenes.shapes import Box, Cylinder, Room, Sphere, rotation

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
