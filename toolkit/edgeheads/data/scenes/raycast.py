"""A ray caster for rooms with solid objects: exact depth, normals and identities, NumPy only.

World frame: x right, y down, z forward, metres, the floor at y = 0. It is the camera frame of a
level camera, so that no axis changes sign between the two.

Vectors are component-first, [3, N] float32: each component is then one contiguous run, which is
what makes elementwise NumPy fast. Every bundle of rays has one origin, the camera or a light, so
that a shape is tested only against the rays inside the cone around its bounding sphere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Box",
    "Camera",
    "Cylinder",
    "Hits",
    "Room",
    "Shape",
    "Sphere",
    "Surface",
    "occluded",
    "rotation",
    "trace",
]

Floats: TypeAlias = NDArray[np.float32]
Vector: TypeAlias = tuple[float, float, float]

# The axes that span a face, by the axis the face is perpendicular to: v runs down the walls.
_U_AXIS = np.array([2, 0, 0])
_V_AXIS = np.array([1, 2, 1])


def rotation(*, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Floats:
    """Return the [3, 3] rotation that turns right by yaw, then down by pitch, then rolls; radians.

    Its columns are the turned axes in the frame it was turned from.
    """
    (cy, sy), (cp, sp), (cr, sr) = ((math.cos(a), math.sin(a)) for a in (yaw, pitch, roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    axes: Floats = (about_y @ about_x @ about_z).astype(np.float32)
    return axes


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


class Surface(NamedTuple):
    """What a shape is like at points on it.

    Attributes:
        normals: [3, N] unit, out of the solid (for a room: into the room).
        u, v: [N] coordinates on the surface, metres.
        along_u, along_v: [3, N] unit vectors in which u and v grow.
        face: [N] which smooth part of the shape: 2 * axis + (on its far side) for boxes and
            rooms, 0 side or 1 cap for cylinders, 0 for spheres.
    """

    normals: Floats
    u: Floats
    v: Floats
    along_u: Floats
    along_v: Floats
    face: NDArray[np.int32]


class Shape(Protocol):
    """A convex solid that rays meet from outside."""

    @property
    def centre(self) -> Vector:
        """Its middle, in the world."""
        ...

    @property
    def bounding_radius(self) -> float:
        """The radius of the smallest sphere around the centre that holds it, metres."""
        ...

    def intersect(self, origin: Floats, directions: Floats) -> Floats:
        """Return the ray parameters [N] where rays from outside enter; infinite where they miss.

        Args:
            origin: [3], shared by all rays.
            directions: [3, N], of any length.
        """
        ...

    def surface(self, points: Floats) -> Surface:
        """Describe the surface at points [3, N] that lie on it."""
        ...


@dataclass(frozen=True)
class Sphere:
    """A ball; v follows the meridians and u the equator, where alone it is true to length."""

    centre: Vector
    radius: float

    @property
    def bounding_radius(self) -> float:
        """The radius itself."""
        return self.radius

    def intersect(self, origin: Floats, directions: Floats) -> Floats:
        """See `Shape.intersect`."""
        entry, _ = _circle_interval(_relative(origin, self.centre), directions, self.radius)
        return _entry_or_miss(entry, entry)

    def surface(self, points: Floats) -> Surface:
        """See `Shape.surface`."""
        local = _relative(points, self.centre)
        normals = local / np.sqrt((local * local).sum(axis=0))
        horizontal = np.maximum(np.hypot(normals[0], normals[2]), np.float32(1e-6))
        sine, cosine = normals[0] / horizontal, normals[2] / horizontal
        down = np.clip(normals[1], -1, 1)
        return Surface(
            normals=normals,
            u=self.radius * np.arctan2(sine, cosine),
            v=self.radius * np.arcsin(down),
            along_u=np.stack([cosine, np.zeros_like(sine), -sine]),
            along_v=np.stack([-sine * down, horizontal, -cosine * down]),
            face=np.zeros(points.shape[1], np.int32),
        )


@dataclass(frozen=True)
class Cylinder:
    """An upright cylinder with flat caps; on the side u runs around and v down."""

    centre: Vector
    radius: float
    half_height: float

    @property
    def bounding_radius(self) -> float:
        """The distance from the centre to the rim of a cap."""
        return math.hypot(self.radius, self.half_height)

    def intersect(self, origin: Floats, directions: Floats) -> Floats:
        """See `Shape.intersect`."""
        local = _relative(origin, self.centre)
        round_in, round_out = _circle_interval(local[::2], directions[::2], self.radius)
        half = np.array([self.half_height], np.float32)
        flat_in, flat_out = _slab_interval(local[1:2], directions[1:2], half)
        return _entry_or_miss(np.maximum(round_in, flat_in), np.minimum(round_out, flat_out))

    def surface(self, points: Floats) -> Surface:
        """See `Shape.surface`."""
        x, y, z = _relative(points, self.centre)
        distance = np.maximum(np.hypot(x, z), np.float32(1e-6))
        sine, cosine = x / distance, z / distance
        cap = np.abs(y) * self.radius > distance * self.half_height
        zero, one = np.zeros_like(x), np.ones_like(x)
        return Surface(
            normals=np.where(cap, np.stack([zero, np.sign(y), zero]), [sine, zero, cosine]),
            u=np.where(cap, x, self.radius * np.arctan2(sine, cosine)),
            v=np.where(cap, z, y),
            along_u=np.where(cap, [one, zero, zero], [cosine, zero, -sine]),
            along_v=np.where(cap, [zero, zero, one], [zero, one, zero]),
            face=cap.astype(np.int32),
        )


@dataclass(frozen=True)
class Box:
    """A box turned by a rotation.

    Attributes:
        half_extents: along its own axes, metres.
        axes: [3, 3], columns are its axes in the world.
    """

    centre: Vector
    half_extents: Vector
    axes: Floats

    @property
    def bounding_radius(self) -> float:
        """The distance from the centre to a corner."""
        return math.hypot(*self.half_extents)

    def intersect(self, origin: Floats, directions: Floats) -> Floats:
        """See `Shape.intersect`."""
        local = self.axes.T @ _relative(origin, self.centre)
        half = np.array(self.half_extents, np.float32)
        return _entry_or_miss(*_slab_interval(local, self.axes.T @ directions, half))

    def surface(self, points: Floats) -> Surface:
        """See `Shape.surface`."""
        local = self.axes.T @ _relative(points, self.centre)
        return _box_surface(local, self.half_extents, self.axes)


@dataclass(frozen=True)
class Room:
    """A level box seen from inside: every ray from inside meets it.

    Attributes:
        lower, upper: opposite corners; the ceiling is at lower y, the floor at upper y.
    """

    lower: Vector
    upper: Vector

    def intersect(self, origin: Floats, directions: Floats) -> Floats:
        """Return the ray parameters [N] where rays from an origin inside [3] meet the room."""
        centre, half = self._centre_and_half_extents()
        _, leave = _slab_interval(_relative(origin, centre), directions, np.array(half, np.float32))
        return leave

    def surface(self, points: Floats) -> Surface:
        """Describe the surface at points [3, N] that lie on it; the normals point inwards."""
        centre, half = self._centre_and_half_extents()
        outwards = _box_surface(_relative(points, centre), half, np.eye(3, dtype=np.float32))
        return outwards._replace(normals=-outwards.normals)

    def _centre_and_half_extents(self) -> tuple[Vector, Vector]:
        (ax, ay, az), (bx, by, bz) = self.lower, self.upper
        centre = ((ax + bx) / 2, (ay + by) / 2, (az + bz) / 2)
        return centre, ((bx - ax) / 2, (by - ay) / 2, (bz - az) / 2)


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


def _relative(points: Floats, centre: Vector) -> Floats:
    """Return points [3] or [3, N] as seen from a centre."""
    offset = np.array(centre, np.float32)
    return points - (offset if points.ndim == 1 else offset[:, None])


def _rays_near(
    shape: Shape, origin: Floats, directions: Floats, squared_lengths: Floats
) -> NDArray[np.intp]:
    """Return the indices of the rays that pass a shape's bounding sphere."""
    towards = -_relative(origin, shape.centre)
    squared_distance = float(towards @ towards)
    # A little wider than the sphere, for rounding.
    squared_tangent = squared_distance - (1.001 * shape.bounding_radius) ** 2
    if squared_tangent <= 0:
        return np.arange(directions.shape[1])
    ahead = towards @ directions
    return np.flatnonzero((ahead > 0) & (ahead * ahead >= squared_tangent * squared_lengths))


def _circle_interval(origin: Floats, directions: Floats, radius: float) -> tuple[Floats, Floats]:
    """Return where rays enter and leave the sphere (3 rows) or circle (2 rows) around zero.

    A miss enters at +infinity and leaves at -infinity. The discriminant is taken from the point
    of closest approach: b² - 4ac would lose the radius in float32 at a few metres.
    """
    squared_lengths = np.maximum((directions * directions).sum(axis=0), np.float32(1e-12))
    closest = -(origin @ directions) / squared_lengths
    miss = origin[:, None] + closest * directions
    discriminant = radius * radius - (miss * miss).sum(axis=0)
    half_chord = np.sqrt(np.maximum(discriminant, 0) / squared_lengths)
    half_chord = np.where(discriminant < 0, np.float32(-np.inf), half_chord)
    return closest - half_chord, closest + half_chord


def _slab_interval(origin: Floats, directions: Floats, half: Floats) -> tuple[Floats, Floats]:
    """Return where rays enter and leave the box of half extents [K] around zero, in K axes."""
    parallel = np.abs(directions) < 1e-12
    inverse = 1 / np.where(parallel, np.float32(1e-12), directions)
    one, other = (-half - origin)[:, None] * inverse, (half - origin)[:, None] * inverse
    return np.minimum(one, other).max(axis=0), np.maximum(one, other).min(axis=0)


def _entry_or_miss(entry: Floats, leave: Floats) -> Floats:
    return np.where((entry <= leave) & (entry > 0), entry, np.float32(np.inf))


def _box_surface(local: Floats, half: Vector, axes: Floats) -> Surface:
    """Describe a box at points [3, N] given in its own axes; the normals point outwards."""
    axis = np.argmax(np.abs(local) / np.array(half, np.float32)[:, None], axis=0)
    column = np.arange(local.shape[1])
    side = np.sign(local[axis, column])
    along_u, along_v = _U_AXIS[axis], _V_AXIS[axis]
    return Surface(
        normals=axes.take(axis, axis=1) * side,
        u=local[along_u, column],
        v=local[along_v, column],
        along_u=axes.take(along_u, axis=1),
        along_v=axes.take(along_v, axis=1),
        face=(2 * axis + (side > 0)).astype(np.int32),
    )


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
