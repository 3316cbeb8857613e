"""A sample seen through another window: the image and every label with it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.sample import IGNORED, Objects, Sample, box_around

__all__ = ["Window", "warp"]

# What lies beside the picture: near the zero of the inputs of most networks.
_BESIDE = (128, 128, 128)
# An object of which less than this is left is labelled as too hard to tell.
_LEAST_LEFT = 0.2
# A box thinner than this, in pixels, is an object no more.
_LEAST_SIDE = 1.0


@dataclass(frozen=True)
class Window:
    """Where in an old picture the pixels of a new one lie.

    Attributes:
        matrix: [2, 3] float64; takes x, y, 1 of the new picture to x, y of the old one, in pixels,
            (0.5, 0.5) the centre of the first one.
        size: (height, width) of the new picture.
        old_size: of the old one.
        turn: by how much the picture is turned, radians from its x axis to its y axis.
    """

    matrix: NDArray[np.float64]
    size: tuple[int, int]
    old_size: tuple[int, int]
    turn: float = 0.0

    def forward(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Return where points [N, 2] of the old picture are in the new one."""
        inverse = np.linalg.inv(self.matrix[:, :2])
        return (points - self.matrix[:, 2]) @ inverse.T

    @cached_property
    def zoom(self) -> float:
        """How much larger things are in the new picture, as a ratio of lengths."""
        return 1 / math.sqrt(abs(float(np.linalg.det(self.matrix[:, :2]))))

    @cached_property
    def _source(self) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Which old pixel each new one [H * W] shows, and whether it shows any."""
        (a, b, c), (d, e, f) = self.matrix
        x = np.arange(self.size[1]) + 0.5
        y = (np.arange(self.size[0]) + 0.5)[:, None]
        columns = np.floor(a * x + (b * y + c)).astype(np.intp)
        rows = np.floor(d * x + (e * y + f)).astype(np.intp)
        height, width = self.old_size
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        return np.where(inside, rows * width + columns, 0).ravel(), inside.ravel()

    def nearest(self, values: NDArray[Any], beside: float) -> NDArray[Any]:
        """Return a map [h, w, ...] as the new picture shows it: no value between two others."""
        pixels, inside = self._source
        new = values.reshape(-1, *values.shape[2:]).take(pixels, axis=0)
        new[~inside] = beside
        return new.reshape(*self.size, *values.shape[2:])

    def masks(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return masks [N, h, w] as the new picture shows them."""
        pixels, inside = self._source
        height, width = self.old_size
        new = masks.reshape(len(masks), height * width).take(pixels, axis=1) & inside
        return new.reshape(len(masks), *self.size)

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the new picture, between pixels bilinear."""
        from PIL import Image

        moved = Image.fromarray(image).transform(
            (self.size[1], self.size[0]),
            Image.Transform.AFFINE,
            tuple(self.matrix.ravel()),
            resample=Image.Resampling.BILINEAR,
            fillcolor=_BESIDE,
        )
        return np.asarray(moved)


def warp(sample: Sample, window: Window) -> Sample:
    """Return what a window shows of a sample.

    Boxes are clipped; an object of which nothing is left is dropped, and one of which little is
    left becomes crowd. Keypoints that leave the image are no longer labelled. Depth keeps its
    metres. Beside the old picture nothing is known.
    """
    normals, scale = sample.normals, sample.keypoint_scale
    return replace(
        sample,
        image=window.image(sample.image),
        objects=None if sample.objects is None else _objects(sample.objects, window),
        semantic=None if sample.semantic is None else window.nearest(sample.semantic, IGNORED),
        keypoints=None if sample.keypoints is None else _keypoints(sample.keypoints, window),
        keypoint_scale=None if scale is None else scale * window.zoom,
        depth=None if sample.depth is None else window.nearest(sample.depth, 0),
        normals=None if normals is None else _turned(window.nearest(normals, 0), window.turn),
    )


def _turned(normals: NDArray[np.float32], turn: float) -> NDArray[np.float32]:
    if turn:
        x, y = normals[..., 0].copy(), normals[..., 1].copy()
        normals[..., 0] = math.cos(turn) * x - math.sin(turn) * y
        normals[..., 1] = math.sin(turn) * x + math.cos(turn) * y
    return normals


def _keypoints(keypoints: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    moved = keypoints.copy()
    moved[:, :2] = window.forward(keypoints[:, :2])
    height, width = window.size
    x, y, seen = moved.T
    moved[(seen == 0) | (x < 0) | (x >= width) | (y < 0) | (y >= height)] = 0
    return moved


def _objects(objects: Objects, window: Window) -> Objects:
    there: NDArray[np.bool_]
    if objects.masks is not None:
        masks = window.masks(objects.masks)
        there = np.any(masks, axis=(1, 2))
        # Around what is left, which can be narrower than what is left of the box.
        around = [box_around(mask) for mask in masks[there]]
        boxes = np.array(around, np.float32).reshape(-1, 4)
        kept = Objects(boxes, objects.classes[there], objects.crowd[there], masks[there])
    else:
        boxes = window.forward(objects.boxes.reshape(-1, 2)).reshape(-1, 4).astype(np.float32)
        np.clip(boxes, 0, (*window.size[::-1], *window.size[::-1]), out=boxes)
        there = np.all(boxes[:, 2:] - boxes[:, :2] >= _LEAST_SIDE, axis=1)
        kept = replace(objects, boxes=boxes).subset(there)
    left = kept.areas() / np.maximum(objects.areas()[there] * window.zoom**2, 1e-6)
    return replace(kept, crowd=kept.crowd | (left < _LEAST_LEFT))
