"""From a scene to a sample: tracing, shading, and the photograph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.sample import Sample
from edgeheads.data.scenes.labels import label_corners, label_objects, label_surfaces
from edgeheads.data.scenes.layout import Light, Scene
from edgeheads.data.scenes.raycast import Hits, occluded, trace
from edgeheads.data.scenes.shapes import Floats
from edgeheads.data.scenes.textures import TEXTURES

__all__ = ["photograph", "render", "shade"]

_ROOM_FACES = 6
# Where each pixel on an edge is sampled again, in pixels from its centre: a rotated grid.
_EDGE_OFFSETS = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))
# Where a light is sampled, in multiples of its radius: four points make a penumbra.
_LIGHT_OFFSETS = ((-1.0, 0.2, -0.4), (0.4, -0.2, -1.0), (1.0, 0.2, 0.4), (-0.4, -0.2, 1.0))


def render(scene: Scene, rng: np.random.Generator, name: str) -> Sample:
    """Trace, shade and photograph a scene, and label what is seen in it."""
    height, width = scene.camera.size
    x, y = scene.camera.pixel_centres()
    hits = trace(scene.camera, scene.room, scene.shapes, x, y)
    radiance = shade(scene, hits)
    _smooth_edges(scene, hits, radiance, x, y)
    normals = scene.camera.axes.T @ hits.surface.normals

    objects = label_objects(scene, hits)
    return Sample(
        image=photograph(radiance.reshape(3, height, width), rng),
        name=name,
        # What the picture is of: the object that takes most of it.
        label=int(objects.classes[objects.areas().argmax()]),
        objects=objects,
        semantic=label_surfaces(scene, hits),
        keypoints=label_corners(scene),
        depth=hits.depth.reshape(height, width),
        normals=np.ascontiguousarray(normals.T).reshape(height, width, 3),
    )


def _material_of(hits: Hits) -> NDArray[np.int32]:
    """Return the index into `Scene.materials` per pixel [N]."""
    return np.where(hits.identity == 0, hits.surface.face, hits.identity + (_ROOM_FACES - 1))


def _smooth_edges(scene: Scene, hits: Hits, radiance: Floats, x: Floats, y: Floats) -> None:
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
    finer = shade(scene, trace(scene.camera, scene.room, scene.shapes, around_x, around_y))
    radiance[:, pixels] = finer.reshape(3, len(_EDGE_OFFSETS), -1).mean(axis=1)


def shade(scene: Scene, hits: Hits) -> Floats:
    """Return the light [3, N] that goes from surfaces to the camera: Lambert and Blinn-Phong."""
    materials = _material_of(hits)
    surface = hits.surface
    albedo = np.empty((3, len(materials)), np.float32)
    gloss = np.empty(len(materials), np.float32)
    for index, material in enumerate(scene.materials):
        here = np.flatnonzero(materials == index)
        period = np.float32(material.period_m)
        mix = TEXTURES[material.texture](
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


def _visible_part(scene: Scene, light: Light, hits: Hits) -> Floats:
    """Return the part [N] of a light that is seen from the points, 0 to 1."""
    hidden = np.zeros(len(hits.depth), np.float32)
    for offset in _LIGHT_OFFSETS:
        x, y, z = (p + light.radius * o for p, o in zip(light.position, offset, strict=True))
        hidden += occluded(scene.shapes, (x, y, z), hits.points)
    return 1 - hidden / np.float32(len(_LIGHT_OFFSETS))


def photograph(radiance: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
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
