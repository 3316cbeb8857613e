"""The shapes of a room and what is in it: where rays meet them, and what their surface is like.

World frame: x right, y down, z forward, metres, the floor at y = 0.

Vectors are component-first, [3, N] float32: each component is then one contiguous run, which is
what makes elementwise NumPy fast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Box",
    "Cylinder",
    "Floats",
    "Room",
    "Shape",
    "Sphere",
    "Surface",
    "Vector",
    "relative",
    "rotation",
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


def relative(points: Floats, centre: Vector) -> Floats:
    """Return points [3] or [3, N] as seen from a centre."""
    offset = np.array(centre, np.float32)
    return points - (offset if points.ndim == 1 else offset[:, None])


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
        entry, _ = _circle_interval(relative(origin, self.centre), directions, self.radius)
        return _entry_or_miss(entry, entry)

    def surface(self, points: Floats) -> Surface:
        """See `Shape.surface`."""
        local = relative(points, self.centre)
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
        local = relative(origin, self.centre)
        round_in, round_out = _circle_interval(local[::2], directions[::2], self.radius)
        half = np.array([self.half_height], np.float32)
        flat_in, flat_out = _slab_interval(local[1:2], directions[1:2], half)
        return _entry_or_miss(np.maximum(round_in, flat_in), np.minimum(round_out, flat_out))

    def surface(self, points: Floats) -> Surface:
        """See `Shape.surface`."""
        x, y, z = relative(points, self.centre)
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
        local = self.axes.T @ relative(origin, self.centre)
        half = np.array(self.half_extents, np.float32)
        return _entry_or_miss(*_slab_interval(local, self.axes.T @ directions, half))

    def surface(self, points: Floats) -> Surface:
        """See `Shape.surface`."""
        local = self.axes.T @ relative(points, self.centre)
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
        _, leave = _slab_interval(relative(origin, centre), directions, np.array(half, np.float32))
        return leave

    def surface(self, points: Floats) -> Surface:
        """Describe the surface at points [3, N] that lie on it; the normals point inwards."""
        centre, half = self._centre_and_half_extents()
        outwards = _box_surface(relative(points, centre), half, np.eye(3, dtype=np.float32))
        return outwards._replace(normals=-outwards.normals)

    def _centre_and_half_extents(self) -> tuple[Vector, Vector]:
        (ax, ay, az), (bx, by, bz) = self.lower, self.upper
        centre = ((ax + bx) / 2, (ay + by) / 2, (az + bz) / 2)
        return centre, ((bx - ax) / 2, (by - ay) / 2, (bz - az) / 2)


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
