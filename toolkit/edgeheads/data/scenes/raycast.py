"""A ray caster for rooms with solid objects: exact depth, normals and identities, NumPy only.

The world frame is that of `shapes`, which is the camera frame of a level camera: no axis changes
sign between the two.

Every bundle of rays has one origin, the camera or a light, so that a shape is tested only against
the rays inside the cone around its bounding sphere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.scenes.shapes import Floats, Room, Shape, Surface, Vector, relative

__all__ = ["Camera", "Hits", "occluded", "trace"]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with square pixels and the principal point at the image centre.

    Attributes:
        position: in the world, metres.
        axes: [3, 3], columns are the camera's right, down and forward axes in the world.
        size: (height, width) of the image in pixels.
        horizontal_fov: radians.
    """

    position: Vector
    axes: Floats
    size: tuple[int, int]
    horizontal_fov: float = math.radians(60)

    @property
    def focal_px(self) -> float:
        """The focal length in pixels, the same along x and y."""
        return self.size[1] / 2 / math.tan(self.horizontal_fov / 2)

    def directions(self, x: Floats, y: Floats) -> Floats:
        """Return the [3, N] world directions through image positions x, y [N].

        Positions are in pixels from the top left corner, so the first pixel's centre is 0.5, 0.5.
        A direction's component along the optical axis is 1: where a ray meets a surface, its
        parameter *is* the depth along that axis.
        """
        height, width = self.size
        focal = self.focal_px
        local = np.stack([(x - width / 2) / focal, (y - height / 2) / focal, np.ones_like(x)])
        return self.axes @ local

    def pixel_centres(self) -> tuple[Floats, Floats]:
        """Return x, y [H * W], row by row."""
        height, width = self.size
        y, x = np.mgrid[0:height, 0:width].astype(np.float32) + np.float32(0.5)
        return x.ravel(), y.ravel()


class Hits(NamedTuple):
    """The nearest surface along each of N camera rays.

    Attributes:
        depth: [N] metres along the optical axis.
        identity: [N] int32; 0 is the room, i > 0 is shapes[i - 1].
        directions, points: [3, N] the rays and where they end, in the world.
        surface: the surface there.
        footprint_u, footprint_v: [N] how far one pixel reaches along u and v, metres.
    """

    depth: Floats
    identity: NDArray[np.int32]
    directions: Floats
    points: Floats
    surface: Surface
    footprint_u: Floats
    footprint_v: Floats


def trace(camera: Camera, room: Room, shapes: Sequence[Shape], x: Floats, y: Floats) -> Hits:
    """Find what the camera sees at image positions x, y [N], in pixels.

    Args:
        camera: inside the room and outside every shape.
        room: what is seen where no shape is.
        shapes: at least none; the nearest one wins.
        x, y: see `Camera.directions`.
    """
    origin = np.array(camera.position, np.float32)
    directions = camera.directions(x, y)
    squared_lengths = (directions * directions).sum(axis=0)
    depth = room.intersect(origin, directions)
    identity = np.zeros(len(depth), np.int32)
    for number, shape in enumerate(shapes, start=1):
        rays = _rays_near(shape, origin, directions, squared_lengths)
        entry = shape.intersect(origin, directions[:, rays])
        nearer = entry < depth[rays]
        depth[rays[nearer]] = entry[nearer]
        identity[rays[nearer]] = number
    points = origin[:, None] + depth * directions
    surface = room.surface(points)
    for number, shape in enumerate(shapes, start=1):
        seen = np.flatnonzero(identity == number)
        for everywhere, here in zip(surface, shape.surface(points[:, seen]), strict=True):
            everywhere[..., seen] = here
    footprint_u, footprint_v = _footprints(camera, depth, directions, surface)
    return Hits(depth, identity, directions, points, surface, footprint_u, footprint_v)


def occluded(shapes: Sequence[Shape], light: Vector, points: Floats) -> NDArray[np.bool_]:
    """Return [N], true where a shape stands between a light's position and points [3, N]."""
    origin = np.array(light, np.float32)
    directions = points - origin[:, None]
    squared_lengths = (directions * directions).sum(axis=0)
    dark = np.zeros(points.shape[1], np.bool_)
    for shape in shapes:
        rays = _rays_near(shape, origin, directions, squared_lengths)
        # The point itself is at 1; staying short of it keeps rounding from shadowing it.
        dark[rays] |= shape.intersect(origin, directions[:, rays]) < 0.998
    return dark


def _rays_near(
    shape: Shape, origin: Floats, directions: Floats, squared_lengths: Floats
) -> NDArray[np.intp]:
    """Return the indices of the rays that pass a shape's bounding sphere."""
    towards = -relative(origin, shape.centre)
    squared_distance = float(towards @ towards)
    # A little wider than the sphere, for rounding.
    squared_tangent = squared_distance - (1.001 * shape.bounding_radius) ** 2
    if squared_tangent <= 0:
        return np.arange(directions.shape[1])
    ahead = towards @ directions
    return np.flatnonzero((ahead > 0) & (ahead * ahead >= squared_tangent * squared_lengths))


def _footprints(
    camera: Camera, depth: Floats, directions: Floats, surface: Surface
) -> tuple[Floats, Floats]:
    """Return how far one pixel reaches along u and v [N]: the ray differential, to first order."""
    facing = np.minimum((surface.normals * directions).sum(axis=0), np.float32(-1e-4))
    reach = []
    for along in (surface.along_u, surface.along_v):
        slant = (along * directions).sum(axis=0) / facing
        total = np.zeros_like(depth)
        for step in camera.axes.T[:2]:
            total += np.abs(step @ along - (step @ surface.normals) * slant)
        reach.append(depth / camera.focal_px * total)
    return reach[0], reach[1]
