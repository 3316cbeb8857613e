"""Random rooms: what stands where, what it is made of, and where the lamps hang."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from edgeheads.data.scenes.raycast import Camera
from edgeheads.data.scenes.shapes import Box, Cylinder, Floats, Room, Sphere, Vector, rotation

__all__ = [
    "CLASSES",
    "CLASS_NAMES",
    "MIN_DEPTH_M",
    "Light",
    "Material",
    "Scene",
    "close_up",
    "half_height_and_reach",
    "random_scene",
]

CLASS_NAMES = ("box", "sphere", "cylinder")
"""The name of each class in `Objects.classes`."""

MIN_DEPTH_M = 0.4
"""Nothing is nearer to the camera, in metres."""

Solid: TypeAlias = Box | Sphere | Cylinder
CLASSES: tuple[type[Solid], ...] = (Box, Sphere, Cylinder)

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


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Attributes:
        texture: a key of `textures.TEXTURES`.
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
class Light:
    """A small ball that shines: intensity is the irradiance one metre away."""

    position: Vector
    radius: float
    intensity: float


@dataclass(frozen=True)
class Scene:
    """Everything there is to see.

    Attributes:
        materials: one per face of the room, then one per shape.
        ambient: irradiance from everywhere.
        lattice: [64, 64] uniform in [0, 1); all patterns draw their randomness from it.
    """

    camera: Camera
    room: Room
    shapes: tuple[Solid, ...]
    materials: tuple[Material, ...]
    lights: tuple[Light, ...]
    ambient: float
    lattice: Floats


def random_scene(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Draw a room, what stands in it, its materials, its lamps and a camera of (height, width)."""
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
    return Scene(
        camera=camera,
        room=room,
        shapes=shapes,
        # In the order of `Surface.face`: left, right, ceiling, floor, the wall behind, the back.
        materials=(walls, walls, ceiling, floor, walls, back, *objects),
        lights=_random_lights(rng, room, shapes),
        ambient=rng.uniform(0.12, 0.4),
        lattice=rng.random((64, 64), dtype=np.float32),
    )


def close_up(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return the scene through a longer lens that is turned to one of its objects."""
    solid = scene.shapes[int(rng.integers(len(scene.shapes)))]
    camera = scene.camera
    across, down, forward = (c - p for c, p in zip(solid.centre, camera.position, strict=True))
    distance = math.hypot(across, down, forward)
    # Half the picture's shorter side, in multiples of what the object reaches from its middle.
    reach = solid.bounding_radius * rng.uniform(1.1, 1.8) / distance
    height, width = camera.size
    turned = replace(
        camera,
        axes=rotation(
            yaw=math.atan2(across, forward),
            pitch=math.asin(down / distance),
            roll=math.radians(rng.uniform(-5, 5)),
        ),
        horizontal_fov=2 * math.atan(reach * width / min(height, width)),
    )
    return replace(scene, camera=turned)


def _random_shapes(rng: np.random.Generator, room: Room, camera: Camera) -> tuple[Solid, ...]:
    """Place two to six objects in view, clear of each other, unless one stands on another."""
    wanted = int(rng.integers(2, 7))
    placed: list[Solid] = []
    while len(placed) < wanted:
        solid = _stand(rng, _random_solid(rng), room, camera, placed)
        if _fits(solid, room, camera, placed):
            placed.append(solid)
    return tuple(placed)


def _random_solid(rng: np.random.Generator) -> Solid:
    """Draw an object of household size, its centre yet at the world's origin."""
    kind = CLASSES[int(rng.integers(len(CLASSES)))]
    if kind is Sphere:
        return Sphere((0, 0, 0), rng.uniform(0.1, 0.36))
    if kind is Cylinder:
        return Cylinder((0, 0, 0), rng.uniform(0.08, 0.35), rng.uniform(0.1, 0.55))
    half = (rng.uniform(0.1, 0.45), rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.45))
    return Box((0, 0, 0), half, rotation(yaw=rng.uniform(0, math.pi)))


def _stand(
    rng: np.random.Generator, solid: Solid, room: Room, camera: Camera, placed: list[Solid]
) -> Solid:
    """Move an object onto another, under the ceiling, or, most often, onto the floor."""
    half_height, _ = half_height_and_reach(solid)
    bases = [base for base in placed if not isinstance(base, Sphere)]
    choice = rng.random()
    if bases and choice < 0.35:
        base = bases[int(rng.integers(len(bases)))]
        top = base.centre[1] - half_height_and_reach(base)[0]
        return replace(solid, centre=(base.centre[0], top - half_height, base.centre[2]))
    distance = rng.uniform(1.3, room.upper[2])
    heading = math.atan2(float(camera.axes[0, 2]), float(camera.axes[2, 2]))
    bearing = heading + rng.uniform(-0.5, 0.5) * camera.horizontal_fov
    x = camera.position[0] + distance * math.tan(bearing)
    hangs = choice > 0.9 and half_height < 0.3
    y = room.lower[1] + half_height if hangs else room.upper[1] - half_height
    return replace(solid, centre=(x, y, distance))


def _fits(solid: Solid, room: Room, camera: Camera, placed: list[Solid]) -> bool:
    """Tell whether an object is inside the room, in view, not too near, and clear of the others."""
    x, y, z = solid.centre
    half_height, reach = half_height_and_reach(solid)
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
        other_half_height, other_reach = half_height_and_reach(other)
        apart = math.hypot(x - other.centre[0], z - other.centre[2])
        stacked = abs(y - other.centre[1]) >= half_height + other_half_height - 1e-6
        if apart < reach + other_reach and not stacked:
            return False
        # What stands on another is no wider than it.
        if stacked and apart == 0 and reach > other_reach:
            return False
    return True


def half_height_and_reach(solid: Solid) -> tuple[float, float]:
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
) -> Material:
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
    return Material(
        texture=texture,
        period_m=rng.uniform(*textures[texture]),
        origin=(rng.uniform(0, 64), rng.uniform(0, 64)),
        colours=(brightness * (1 - saturations * (1 - phase) / 2)).astype(np.float32),
        gloss=rng.uniform(0.1, 0.6) if rng.random() < 0.5 else 0.0,
    )


def _random_lights(
    rng: np.random.Generator, room: Room, shapes: tuple[Solid, ...]
) -> tuple[Light, ...]:
    """Hang one or two lamps below the ceiling, outside of every object."""
    wanted = int(rng.integers(1, 3))
    lights: list[Light] = []
    while len(lights) < wanted:
        position = (
            rng.uniform(-0.8, 0.8) * room.upper[0],
            room.lower[1] + rng.uniform(0.25, 0.6),
            rng.uniform(-0.5, room.upper[2] - 0.8),
        )
        radius = rng.uniform(0.03, 0.12)
        if all(math.dist(position, s.centre) > s.bounding_radius + 2 * radius for s in shapes):
            lights.append(Light(position, radius, rng.uniform(3.0, 8.0) / wanted))
    return tuple(lights)
