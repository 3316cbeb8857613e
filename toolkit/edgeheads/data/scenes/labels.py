"""What a rendered scene is labelled with, from what its rays met."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.sample import LabelNames, Objects, box_around
from edgeheads.data.scenes.layout import CLASS_NAMES, CLASSES, Scene
from edgeheads.data.scenes.raycast import Hits, trace

__all__ = ["NAMES", "label_corners", "label_objects", "label_surfaces"]

_SURFACES = ("floor", "wall", "ceiling")
_CORNERS = ("back left floor", "back right floor", "back left ceiling", "back right ceiling")

NAMES = LabelNames(
    classes=CLASS_NAMES,
    semantic=(*_SURFACES, *CLASS_NAMES),
    keypoints=_CORNERS,
    mirrored_keypoints=((0, 1), (2, 3)),
)
"""What the numbers in a scene's labels stand for."""

# The semantic class of each face of the room, in the order of `Surface.face`.
_FACE_CLASSES = np.array([1, 1, 2, 0, 1, 1], np.int32)

# Of an object that shows less than this share of the image, nobody could tell what it is.
_LEAST_SHARE = 1e-3


def label_objects(scene: Scene, hits: Hits) -> Objects:
    """Return every object that is seen, its box around the pixels that show it."""
    identity = hits.identity.reshape(scene.camera.size)
    seen = np.unique(identity[identity > 0])
    masks = identity == seen[:, None, None]
    boxes = np.array([box_around(mask) for mask in masks], np.float32).reshape(-1, 4)
    classes = [CLASSES.index(type(scene.shapes[number - 1])) for number in seen]
    crowd = masks.sum(axis=(1, 2)) < _LEAST_SHARE * identity.size
    return Objects(boxes, np.array(classes, np.int32), crowd, masks)


def label_surfaces(scene: Scene, hits: Hits) -> NDArray[np.int32]:
    """Return the class [H, W] of every pixel: a surface of the room, or an object's."""
    of_shapes = [len(_SURFACES) + CLASSES.index(type(shape)) for shape in scene.shapes]
    # Index 0 of `identity` is the room, whose class the face decides.
    table = np.array([0, *of_shapes], np.int32)
    room = hits.identity == 0
    face = np.where(room, hits.surface.face, 0)
    classes: NDArray[np.int32] = np.where(room, _FACE_CLASSES[face], table[hits.identity])
    return classes.reshape(scene.camera.size)


def label_corners(scene: Scene) -> NDArray[np.float32]:
    """Return where the corners of the back wall are in the image: `Sample.keypoints`."""
    (left, ceiling, _), (right, floor, back) = scene.room.lower, scene.room.upper
    corners = [(left, floor, back), (right, floor, back), (left, ceiling, back)]
    corners.append((right, ceiling, back))
    camera = scene.camera
    height, width = camera.size
    points = np.zeros((len(corners), 3), np.float32)
    for point, corner in zip(points, corners, strict=True):
        across, down, forward = camera.axes.T @ (np.array(corner) - camera.position)
        x = width / 2 + camera.focal_px * across / forward
        y = height / 2 + camera.focal_px * down / forward
        if 0 <= x < width and 0 <= y < height:
            point[:] = x, y, 2
    # A ray of its own, because that of the nearest pixel meets a floor or a wall before the corner.
    x, y = points[:, 0], points[:, 1]
    hidden = trace(camera, scene.room, scene.shapes, x, y).identity > 0
    points[hidden & (points[:, 2] > 0), 2] = 1
    return points
