"""Synthetic indoor scenes with exact labels, rendered where they are needed: NumPy only.

What makes metric depth learnable from one of these images is what makes it learnable from a
photograph: a fixed field of view, a camera at eye height, rooms, objects and textures of familiar
size, contact with the floor, and shadows.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.render import (
    Box,
    Camera,
    Cylinder,
    Floats,
    Hits,
    Room,
    Sphere,
    Vector,
    occluded,
    rotation,
    trace,
)
from edgeheads.data.sample import Sample
from edgeheads.errors import EdgeheadsError

__all__ = ["CLASS_NAMES", "MAX_DEPTH_M", "MIN_DEPTH_M", "SyntheticScenes"]

CLASS_NAMES = ("box", "sphere", "cylinder")
"""The name of each class in `Sample.instance_classes`."""

MIN_DEPTH_M, MAX_DEPTH_M = 0.4, 10.0
"""Every depth in every scene lies between these, in metres."""

_MIN_SIDE_PX = 16
_MAX_ASPECT = 2.0
_ROOM_FACES = 6
_Solid: TypeAlias = Box | Sphere | Cylinder
_CLASSES: tuple[type[_Solid], ...] = (Box, Sphere, Cylinder)
# Where each pixel on an edge is sampled again, in pixels from its centre: a rotated grid.
_EDGE_OFFSETS = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))
# Where a light is sampled, in multiples of its radius: four points make a penumbra.
_LIGHT_OFFSETS = ((-1.0, 0.2, -0.4), (0.4, -0.2, -1.0), (1.0, 0.2, 0.4), (-0.4, -0.2, 1.0))


class SyntheticScenes:
    """Rooms with two to six objects, each a `Sample` with every label exact.

    A sample depends on its index, the seed, the split and the size, not on what was read before.
    It is the same in every process; across NumPy versions and processors it is the same up to
    rounding. The image has lens blur, vignetting and sensor noise; the labels are those of the
    pixel centres. Objects that nobody can see are not labelled: every listed instance has pixels.

    Args:
        count: how many scenes, at least 0.
        size: (height, width) of the images in pixels, each at least 16 and at most twice the
            other. The horizontal field of view is 60 degrees.
        seed: at least 0.
        split: any name; different names have no scene in common.
    """

    def __init__(
        self, count: int, size: tuple[int, int], *, seed: int = 0, split: str = "train"
    ) -> None:
        height, width = size
        if count < 0:
            raise EdgeheadsError(f"count must be at least 0; received count={count}")
        if min(size) < _MIN_SIDE_PX:
            raise EdgeheadsError(
                f"size must be (height, width) of at least {_MIN_SIDE_PX} pixels each; "
                f"received size={size}"
            )
        if max(size) > _MAX_ASPECT * min(size):
            raise EdgeheadsError(
                f"size must be (height, width) with one at most twice the other, because the "
                f"horizontal field of view is fixed; received size={size}"
            )
        if seed < 0:
            raise EdgeheadsError(f"seed must be at least 0; received seed={seed}")
        self._count = count
        self._size = (height, width)
        self._seed = seed
        self._split = split

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(self._count))

    def __getitem__(self, index: int) -> Sample:
        """Render one scene; index is in [0, count)."""
        index = operator.index(index)
        if not 0 <= index < self._count:
            raise IndexError(f"index must be in [0, {self._count}); received index={index}")
        key = hashlib.sha256(f"{self._seed} {index} {self._split}".encode()).digest()
        rng = np.random.default_rng(np.random.SeedSequence(int.from_bytes(key, "big")))
        scene = _random_scene(rng, self._size)
        name = f"scene {index} of {self._split}, seed {self._seed}"
        return _render(scene, rng, name)


@dataclass(frozen=True)
class _Material:
    """How a surface looks.

    Attributes:
        texture: a key of `_TEXTURES`.
        period_m: the size of its pattern.
        origin: where on the surface the pattern starts, in periods.
        colours: [2, 3] linear reflectance, between which the pattern mixes.
        gloss: strength of the highlight, 0 for matt.
    """

    texture: str
    period_m: float
    origin: tuple[float, float]
    colours: Floats
    gloss: float


@dataclass(frozen=True)
class _Light:
    """A small ball that shines: intensity is the irradiance one metre away."""

    position: Vector
    radius: float
    intensity: float


@dataclass(frozen=True)
class _Scene:
    """Everything there is to see.

    Attributes:
        materials: one per face of the room, then one per shape.
        ambient: irradiance from everywhere.
        lattice: [64, 64] uniform in [0, 1); all patterns draw their randomness from it.
    """

    camera: Camera
    room: Room
    shapes: tuple[_Solid, ...]
    materials: tuple[_Material, ...]
    lights: tuple[_Light, ...]
    ambient: float
    lattice: Floats


# --- Textures: u, v [N] and the pixel's reach along them, in periods -> mix [N] in [0, 1] ---

_Texture: TypeAlias = Callable[[Floats, Floats, Floats, Floats, Floats], Floats]


def _pulse(x: Floats, width: Floats, duty: np.float32) -> Floats:
    """Return the mean over `width` of a wave of period 1 that is 1 for `duty`, then 0."""

    def integral(position: Floats) -> Floats:
        whole = np.floor(position)
        return whole * duty + np.minimum(position - whole, duty)

    width = np.maximum(width, np.float32(1e-3))
    half = width * np.float32(0.5)
    return (integral(x + half) - integral(x - half)) / width


def _resolved(width: Floats) -> Floats:
    """Return 1 where a pixel spans at most half a period, down to 0 from one period on."""
    return np.minimum(np.maximum(2 - 2 * width, np.float32(0)), np.float32(1))


def _at(lattice: Floats, column: Floats, row: Floats) -> Floats:
    values: Floats = lattice[row.astype(np.int32) & 63, column.astype(np.int32) & 63]
    return values


def _noise(u: Floats, v: Floats, du: Floats, dv: Floats, lattice: Floats) -> Floats:
    """Three octaves of value noise; an octave that the pixels cannot resolve becomes its mean."""
    total = np.full_like(u, 0.5)
    for octave, amplitude in enumerate((0.55, 0.28, 0.17)):
        x, y = u * 2**octave + 17 * octave, v * 2**octave + 29 * octave
        left, top = np.floor(x), np.floor(y)
        s, t = x - left, y - top
        s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
        upper = _at(lattice, left, top) * (1 - s) + _at(lattice, left + 1, top) * s
        lower = _at(lattice, left, top + 1) * (1 - s) + _at(lattice, left + 1, top + 1) * s
        value = upper * (1 - t) + lower * t
        total += amplitude * (value - 0.5) * _resolved(np.maximum(du, dv) * 2**octave)
    return total


def _plain(u: Floats, v: Floats, du: Floats, dv: Floats, lattice: Floats) -> Floats:
    return 0.3 * _noise(u, v, du, dv, lattice)


def _stripes(u: Floats, v: Floats, du: Floats, dv: Floats, lattice: Floats) -> Floats:
    return _pulse(u, du, np.float32(0.5))


def _checker(u: Floats, v: Floats, du: Floats, dv: Floats, lattice: Floats) -> Floats:
    half = np.float32(0.5)
    across, down = _pulse(u, du, half), _pulse(v, dv, half)
    return across + down - 2 * across * down


def _courses(length: float, shift: float, joint: float) -> _Texture:
    """Make a pattern of pieces laid in rows of height 1.

    Args:
        length: of a piece, in row heights.
        shift: how far each row is shifted against the one before, in piece lengths.
        joint: the width of the joints, in row heights.
    """
    scale, offset, gap = np.float32(length), np.float32(shift), np.float32(joint)

    def texture(u: Floats, v: Floats, du: Floats, dv: Floats, lattice: Floats) -> Floats:
        row: Floats = np.floor(v)
        along, reach = u / scale + offset * row, du / scale
        joints = np.maximum(_pulse(along, reach, gap / scale), _pulse(v, dv, gap))
        piece = _at(lattice, np.floor(along), row) - 0.5
        tint = 0.25 + 0.4 * piece * _resolved(np.maximum(reach, dv))
        return tint + (1 - tint) * joints

    return texture


_TEXTURES: dict[str, _Texture] = {
    "plain": _plain,
    "stripes": _stripes,
    "checker": _checker,
    "noise": _noise,
    "bricks": _courses(length=3.0, shift=0.5, joint=0.12),
    "tiles": _courses(length=1.0, shift=0.0, joint=0.04),
    "planks": _courses(length=7.0, shift=0.38, joint=0.06),
}
# Which textures a surface may have, and the range of their period in metres.
_FLOOR = {"planks": (0.1, 0.2), "tiles": (0.25, 0.6), "checker": (0.5, 1.0), "noise": (0.1, 0.4)}
_WALL = {"plain": (0.2, 0.6), "bricks": (0.08, 0.12), "stripes": (0.2, 0.6), "tiles": (0.15, 0.4)}
_CEILING = {"plain": (0.2, 0.6), "tiles": (0.5, 0.7), "planks": (0.1, 0.2)}
_OBJECT = {
    "plain": (0.05, 0.2),
    "stripes": (0.06, 0.2),
    "checker": (0.1, 0.24),
    "noise": (0.05, 0.2),
    "bricks": (0.06, 0.1),
    "planks": (0.08, 0.12),
}


# --- Layout ---


def _random_scene(rng: np.random.Generator, size: tuple[int, int]) -> _Scene:
    half_width = rng.uniform(1.6, 3.2)
    depth, height = rng.uniform(4.4, 8.4), rng.uniform(2.4, 3.0)
    room = Room((-half_width, -height, -1.0), (half_width, 0.0, depth))
    yaw, pitch, roll = (
        math.radians(rng.uniform(*limits)) for limits in ((-8, 8), (5, 20), (-3, 3))
    )
    camera = Camera(
        position=(rng.uniform(-0.4, 0.4) * half_width, -rng.uniform(1.2, 1.6), 0.0),
        axes=rotation(yaw=yaw, pitch=pitch, roll=roll),
        size=size,
    )
    shapes = _random_shapes(rng, room, camera)
    floor, ceiling, walls, accent = (
        _random_material(rng, textures, saturation, value)
        for textures, saturation, value in (
            (_FLOOR, 0.5, (0.15, 0.6)),
            (_CEILING, 0.15, (0.6, 0.85)),
            (_WALL, 0.35, (0.35, 0.8)),
            (_WALL, 0.6, (0.25, 0.7)),
        )
    )
    back = accent if rng.random() < 0.4 else walls
    objects = (_random_material(rng, _OBJECT, 0.95, (0.2, 0.85)) for _ in shapes)
    return _Scene(
        camera=camera,
        room=room,
        shapes=shapes,
        # In the order of `Surface.face`: left, right, ceiling, floor, the wall behind, the back.
        materials=(walls, walls, ceiling, floor, walls, back, *objects),
        lights=_random_lights(rng, room, shapes),
        ambient=rng.uniform(0.12, 0.4),
        lattice=rng.random((64, 64), dtype=np.float32),
    )


def _random_shapes(rng: np.random.Generator, room: Room, camera: Camera) -> tuple[_Solid, ...]:
    """Place two to six objects in view, clear of each other, unless one stands on another."""
    wanted = int(rng.integers(2, 7))
    placed: list[_Solid] = []
    while len(placed) < wanted:
        solid = _stand(rng, _random_solid(rng), room, camera, placed)
        if _fits(solid, room, camera, placed):
            placed.append(solid)
    return tuple(placed)


def _random_solid(rng: np.random.Generator) -> _Solid:
    """Draw an object of household size, its centre yet at the world's origin."""
    kind = _CLASSES[int(rng.integers(len(_CLASSES)))]
    if kind is Sphere:
        return Sphere((0, 0, 0), rng.uniform(0.1, 0.36))
    if kind is Cylinder:
        return Cylinder((0, 0, 0), rng.uniform(0.08, 0.35), rng.uniform(0.1, 0.55))
    half = (rng.uniform(0.1, 0.45), rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.45))
    return Box((0, 0, 0), half, rotation(yaw=rng.uniform(0, math.pi)))


def _stand(
    rng: np.random.Generator, solid: _Solid, room: Room, camera: Camera, placed: list[_Solid]
) -> _Solid:
    """Move an object onto another, under the ceiling, or, most often, onto the floor."""
    half_height, _ = _half_height_and_reach(solid)
    bases = [base for base in placed if not isinstance(base, Sphere)]
    choice = rng.random()
    if bases and choice < 0.35:
        base = bases[int(rng.integers(len(bases)))]
        top = base.centre[1] - _half_height_and_reach(base)[0]
        return replace(solid, centre=(base.centre[0], top - half_height, base.centre[2]))
    distance = rng.uniform(1.3, room.upper[2])
    heading = math.atan2(float(camera.axes[0, 2]), float(camera.axes[2, 2]))
    bearing = heading + rng.uniform(-0.5, 0.5) * camera.horizontal_fov
    x = camera.position[0] + distance * math.tan(bearing)
    hangs = choice > 0.9 and half_height < 0.3
    y = room.lower[1] + half_height if hangs else room.upper[1] - half_height
    return replace(solid, centre=(x, y, distance))


def _fits(solid: _Solid, room: Room, camera: Camera, placed: list[_Solid]) -> bool:
    """Tell whether an object is inside the room, in view, not too near, and clear of the others."""
    x, y, z = solid.centre
    half_height, reach = _half_height_and_reach(solid)
    if not (
        room.lower[0] + reach < x < room.upper[0] - reach
        and z < room.upper[2] - reach
        and room.lower[1] + half_height - 1e-6 <= y
    ):
        return False
    right, down, forward = camera.axes.T @ (np.array(solid.centre) - camera.position)
    if forward - solid.bounding_radius < 1.5 * MIN_DEPTH_M:
        return False
    height, width = camera.size
    in_view = 0.95 * forward / camera.focal_px
    if abs(right) > in_view * width / 2 or abs(down) > in_view * height / 2:
        return False
    for other in placed:
        other_half_height, other_reach = _half_height_and_reach(other)
        apart = math.hypot(x - other.centre[0], z - other.centre[2])
        stacked = abs(y - other.centre[1]) >= half_height + other_half_height - 1e-6
        if apart < reach + other_reach and not stacked:
            return False
        # What stands on another is no wider than it.
        if stacked and apart == 0 and reach > other_reach:
            return False
    return True


def _half_height_and_reach(solid: _Solid) -> tuple[float, float]:
    """Return half the height, and the radius of the upright cylinder around an object; metres."""
    if isinstance(solid, Box):
        across, half_height, along = solid.half_extents
        return half_height, math.hypot(across, along)
    if isinstance(solid, Cylinder):
        return solid.half_height, solid.radius
    return solid.radius, solid.radius


def _random_material(
    rng: np.random.Generator,
    textures: dict[str, tuple[float, float]],
    saturation: float,
    value: tuple[float, float],
) -> _Material:
    """Draw a texture, its size, and two colours of one hue or, sometimes, of two."""
    texture = list(textures)[int(rng.integers(len(textures)))]
    hue = rng.uniform(0, 1)
    hues = np.array([[hue], [hue if rng.random() < 0.7 else rng.uniform(0, 1)]])
    saturations = rng.uniform(0, saturation, (2, 1))
    bright = rng.uniform(*value)
    brightness = np.array([[bright], [bright * rng.uniform(0.3, 0.7)]])
    if rng.random() < 0.5:
        brightness = brightness[::-1]
    phase = np.cos(2 * np.pi * (hues + np.array([0, 1 / 3, 2 / 3])))
    return _Material(
        texture=texture,
        period_m=rng.uniform(*textures[texture]),
        origin=(rng.uniform(0, 64), rng.uniform(0, 64)),
        colours=(brightness * (1 - saturations * (1 - phase) / 2)).astype(np.float32),
        gloss=rng.uniform(0.1, 0.6) if rng.random() < 0.5 else 0.0,
    )


def _random_lights(
    rng: np.random.Generator, room: Room, shapes: tuple[_Solid, ...]
) -> tuple[_Light, ...]:
    """Hang one or two lamps below the ceiling, outside of every object."""
    wanted = int(rng.integers(1, 3))
    lights: list[_Light] = []
    while len(lights) < wanted:
        position = (
            rng.uniform(-0.8, 0.8) * room.upper[0],
            room.lower[1] + rng.uniform(0.25, 0.6),
            rng.uniform(-0.5, room.upper[2] - 0.8),
        )
        radius = rng.uniform(0.03, 0.12)
        if all(math.dist(position, s.centre) > s.bounding_radius + 2 * radius for s in shapes):
            lights.append(_Light(position, radius, rng.uniform(3.0, 8.0) / wanted))
    return tuple(lights)


# --- Image ---


def _render(scene: _Scene, rng: np.random.Generator, name: str) -> Sample:
    """Trace, shade and photograph a scene, and label what is seen in it."""
    height, width = scene.camera.size
    x, y = scene.camera.pixel_centres()
    hits = trace(scene.camera, scene.room, scene.shapes, x, y)
    radiance = _shade(scene, hits)
    _smooth_edges(scene, hits, radiance, x, y)
    normals = scene.camera.axes.T @ hits.surface.normals

    # Number the objects that are seen from 1 on, without gaps.
    seen = np.unique(hits.identity[hits.identity > 0])
    numbers = np.zeros(len(scene.shapes) + 1, np.int32)
    numbers[seen] = np.arange(1, len(seen) + 1)
    classes = [_CLASSES.index(type(scene.shapes[number - 1])) for number in seen]
    return Sample(
        image=_photograph(radiance.reshape(3, height, width), rng),
        name=name,
        depth=hits.depth.reshape(height, width),
        normals=np.ascontiguousarray(normals.T).reshape(height, width, 3),
        instances=numbers[hits.identity].reshape(height, width),
        instance_classes=np.array(classes, np.int32),
    )


def _material_of(hits: Hits) -> NDArray[np.int32]:
    """Return the index into `_Scene.materials` per pixel [N]."""
    return np.where(hits.identity == 0, hits.surface.face, hits.identity + (_ROOM_FACES - 1))


def _smooth_edges(scene: _Scene, hits: Hits, radiance: Floats, x: Floats, y: Floats) -> None:
    """Replace the radiance [3, N] of pixels on outlines and creases by a mean over the pixel.

    Textures filter themselves, so that only these few pixels need more than one ray.
    """
    parts = (hits.identity * 8 + hits.surface.face).reshape(scene.camera.size)
    edge = np.zeros(parts.shape, np.bool_)
    across, down = parts[:, 1:] != parts[:, :-1], parts[1:] != parts[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    pixels = np.flatnonzero(edge)
    dx, dy = np.array(_EDGE_OFFSETS, np.float32).T[:, :, None]
    around_x, around_y = (x[pixels] + dx).ravel(), (y[pixels] + dy).ravel()
    finer = _shade(scene, trace(scene.camera, scene.room, scene.shapes, around_x, around_y))
    radiance[:, pixels] = finer.reshape(3, len(_EDGE_OFFSETS), -1).mean(axis=1)


def _shade(scene: _Scene, hits: Hits) -> Floats:
    """Return the light [3, N] that goes from surfaces to the camera: Lambert and Blinn-Phong."""
    materials = _material_of(hits)
    surface = hits.surface
    albedo = np.empty((3, len(materials)), np.float32)
    gloss = np.empty(len(materials), np.float32)
    for index, material in enumerate(scene.materials):
        here = np.flatnonzero(materials == index)
        period = np.float32(material.period_m)
        mix = _TEXTURES[material.texture](
            surface.u[here] / period + np.float32(material.origin[0]),
            surface.v[here] / period + np.float32(material.origin[1]),
            hits.footprint_u[here] / period,
            hits.footprint_v[here] / period,
            scene.lattice,
        )
        first, second = material.colours[:, :, None]
        albedo[:, here] = first + (second - first) * mix
        gloss[here] = material.gloss
    to_camera = -hits.directions / np.sqrt((hits.directions**2).sum(axis=0))
    # Lit rooms are brighter from above than from below.
    diffuse = scene.ambient * (1 - 0.25 * surface.normals[1])
    highlight = np.zeros_like(diffuse)
    for light in scene.lights:
        to_light = np.array(light.position, np.float32)[:, None] - hits.points
        distance = np.sqrt((to_light * to_light).sum(axis=0))
        to_light /= distance
        # A real lamp is never a point: close to it the irradiance stays bounded.
        arriving = light.intensity * _visible_part(scene, light, hits) / (distance**2 + 0.3)
        diffuse += arriving * np.maximum((to_light * surface.normals).sum(axis=0), 0)
        halfway = to_light + to_camera
        cosine = (halfway * surface.normals).sum(axis=0) / np.sqrt((halfway**2).sum(axis=0))
        highlight += arriving * np.maximum(cosine, 0) ** 32
    radiance: Floats = albedo * diffuse + gloss * highlight
    return radiance


def _visible_part(scene: _Scene, light: _Light, hits: Hits) -> Floats:
    """Return the part [N] of a light that is seen from the points, 0 to 1."""
    hidden = np.zeros(len(hits.depth), np.float32)
    for offset in _LIGHT_OFFSETS:
        x, y, z = (p + light.radius * o for p, o in zip(light.position, offset, strict=True))
        hidden += occluded(scene.shapes, (x, y, z), hits.points)
    return 1 - hidden / np.float32(len(_LIGHT_OFFSETS))


def _photograph(radiance: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn radiance [3, H, W] into the [H, W, 3] image of a small camera.

    Exposure, white balance, vignetting, lens blur, shot and read noise, display gamma.
    """
    _, height, width = radiance.shape
    # Exposed for the mean, as cameras do, more or less well.
    exposure = rng.uniform(0.2, 0.4) / float(radiance.mean())
    warmth, tint = rng.uniform(-0.12, 0.12), rng.uniform(-0.04, 0.04)
    gains = np.array([1 + warmth, 1 + tint, 1 - warmth], np.float32) * np.float32(exposure)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    vignette = 1 - np.float32(rng.uniform(0.02, 0.15)) * (x * x + y * y)
    signal = _blur(radiance * gains[:, None, None] * vignette, np.float32(rng.uniform(0.0, 0.2)))
    shot, read = rng.uniform(0.01, 0.035), rng.uniform(0.002, 0.008)
    deviation = np.sqrt(shot * shot * signal + read * read)
    signal += deviation * rng.standard_normal(signal.shape, dtype=np.float32)
    display = np.clip(signal, 0, 1) ** np.float32(1 / 2.2)
    return np.ascontiguousarray((display * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))


def _blur(image: Floats, side: np.float32) -> Floats:
    """Convolve [3, H, W] with (side, 1 - 2 side, side) along both axes."""
    centre = np.float32(1) - np.float32(2) * side
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows: Floats = centre * padded[:, 1:-1] + side * (padded[:, :-2] + padded[:, 2:])
    blurred: Floats = centre * rows[:, :, 1:-1] + side * (rows[:, :, :-2] + rows[:, :, 2:])
    return blurred
