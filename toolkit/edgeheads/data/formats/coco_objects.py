"""Records of COCO JSON, made into samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.formats.labels import (
    Complaints,
    make_objects,
    read_labelled_picture,
    require_few,
    require_size,
    usable_keypoints,
)
from edgeheads.data.formats.masks import decode_runs, fill_polygons, unpack_runs
from edgeheads.data.sample import Sample, box_around
from edgeheads.errors import EdgeheadsError

__all__ = ["load_crop", "load_image"]

Record = Mapping[str, Any]

# A person is cut out with this share of the box added on every side.
_MARGIN = 0.1


def load_image(
    path: Path,
    record: Record,
    labels: Sequence[Record],
    by_category: Mapping[Any, int],
    with_masks: bool,
) -> Sample:
    """Return an image with its objects.

    Args:
        path: of the picture.
        record: from "images".
        labels: from "annotations".
        by_category: {category id: class}.
        with_masks: the file has masks; an object without one leaves its image without any.
    """
    complaints = Complaints(str(path))
    require_few(len(labels), str(path))
    image = _picture(path, record, complaints)
    size = image.shape[:2]
    boxes, classes, crowd = [], [], []
    masks: list[NDArray[np.bool_]] | None = [] if with_masks else None
    if with_masks:
        require_few(len(labels), str(path), size)
    for label in _distinct(labels, complaints):
        category = label.get("category_id")
        if not isinstance(category, int | str) or category not in by_category:
            complaints.add("object of an unknown category id, left out", repr(category))
            continue
        mask = _mask(label, size, complaints) if masks is not None else None
        box = _box(label.get("bbox"))
        if box is None and mask is not None:
            box = tuple(float(side) for side in box_around(mask))
        if box is None:
            complaints.add("object whose bbox is not four numbers, left out", label.get("bbox"))
            continue
        if masks is not None and mask is None:
            complaints.add("object without a mask, which leaves its image without any")
            masks = None
        if masks is not None and mask is not None:
            masks.append(mask)
        boxes.append(box)
        classes.append(by_category[category])
        crowd.append(bool(label.get("iscrowd")))
    objects = make_objects(boxes, classes, crowd, size, complaints, masks)
    return Sample(image=image, name=str(path), objects=objects, problems=complaints.texts())


def load_crop(path: Path, record: Record, label: Record, points: int) -> Sample:
    """Return one object, cut out of its picture, with its keypoints.

    The cut holds the box and every labelled point, and a tenth more on every side.

    Args:
        path: of the picture.
        record: from "images".
        label: from "annotations".
        points: how many keypoints the category has.

    Raises:
        EdgeheadsError: the picture cannot be read, or the label lacks its box or points.
    """
    name = f"{path} annotation {label.get('id')!r}"
    complaints = Complaints(name)
    image = _picture(path, record, complaints)
    height, width = image.shape[:2]
    numbers = _numbers(label.get("keypoints"), 3 * points)
    box = _box(label.get("bbox"))
    if numbers is None or box is None:
        raise EdgeheadsError(
            f"{name} must have {3 * points} numbers in keypoints and 4 in bbox, received "
            f"{label.get('keypoints')!s:.40} and {label.get('bbox')!s:.40}"
        )
    raw = np.array(numbers).reshape(-1, 3)
    # COCO counts pixels; half a one further is its centre.
    raw[:, :2] += 0.5
    keypoints = usable_keypoints(raw, (height, width), complaints)
    seen = keypoints[keypoints[:, 2] > 0, :2]
    low = np.minimum(box[:2], seen.min(axis=0, initial=math.inf))
    high = np.maximum(box[2:], seen.max(axis=0, initial=-math.inf))
    margin = _MARGIN * (high - low)
    left, top = np.clip(np.floor(low - margin), 0, [width, height]).astype(int)
    right, bottom = np.clip(np.ceil(high + margin), 0, [width, height]).astype(int)
    if right <= left or bottom <= top:
        raise EdgeheadsError(f"{name} has the box {label.get('bbox')}, which shows nothing")
    keypoints[keypoints[:, 2] > 0, :2] -= (left, top)
    area = _numbers([label.get("area")], 1)
    if area is None or area[0] <= 0:
        area = [(box[2] - box[0]) * (box[3] - box[1])]
    return Sample(
        image=np.ascontiguousarray(image[top:bottom, left:right]),
        name=name,
        keypoints=keypoints,
        keypoint_scale=math.sqrt(area[0]),
        problems=complaints.texts(),
    )


def _picture(path: Path, record: Record, complaints: Complaints) -> NDArray[np.uint8]:
    sides = _numbers([record.get("height"), record.get("width")], 2)
    size = (int(sides[0]), int(sides[1])) if sides and min(sides) > 0 else None
    image = read_labelled_picture(path, size, complaints)
    require_size(image, size, path)
    return image


def _distinct(labels: Sequence[Record], complaints: Complaints) -> list[Record]:
    """Leave out what is there twice: an id that comes again."""
    seen: set[object] = set()
    distinct = []
    for label in labels:
        identity = label.get("id")
        if isinstance(identity, int | str) and identity in seen:
            complaints.add("annotation id that is there twice, the second left out", repr(identity))
            continue
        if isinstance(identity, int | str):
            seen.add(identity)
        distinct.append(label)
    return distinct


def _numbers(values: object, count: int) -> list[float] | None:
    """Return `count` finite numbers, or None for anything else."""
    if not isinstance(values, list) or len(values) != count:
        return None
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
            return None
    numbers = [float(value) for value in values]
    return numbers if all(math.isfinite(number) for number in numbers) else None


def _box(values: object) -> tuple[float, ...] | None:
    """Return x_min, y_min, x_max, y_max of COCO's x, y, width, height."""
    numbers = _numbers(values, 4)
    if numbers is None:
        return None
    left, top, width, height = numbers
    return left, top, left + width, top + height


def _mask(label: Record, size: tuple[int, int], complaints: Complaints) -> NDArray[np.bool_] | None:
    """Return the mask of an object; None where it has none, or one that cannot be read."""
    shape = label.get("segmentation")
    if not shape:
        return None
    try:
        if isinstance(shape, list):
            mask = fill_polygons(shape, size)
        elif isinstance(shape, dict) and list(shape.get("size", ())) == list(size):
            runs: Any = shape.get("counts")
            mask = decode_runs(unpack_runs(runs) if isinstance(runs, str) else runs, size)
        else:
            raise ValueError(f"expected polygons, or runs of size {list(size)}, got {shape!s:.60}")
    except (ValueError, TypeError, OverflowError) as error:
        complaints.add("mask that cannot be read", error)
        return None
    if not mask.any():
        complaints.add("mask without a pixel")
        return None
    return mask
