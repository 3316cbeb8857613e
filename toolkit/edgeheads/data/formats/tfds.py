"""Data sets of TensorFlow Datasets, by name. Preparing one needs TensorFlow, reading it none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.formats.labels import Complaints, make_objects, require_few
from edgeheads.data.formats.listing import Entry, Listing, split_of
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError, MissingDependencyError

__all__ = ["EXPECTED", "read"]

EXPECTED = "tfds:NAME of a data set with an image, and a label or objects with bbox and label"

# Formats that allow an example to be read by its number.
_FILE_FORMAT = "array_record"
_CROWD_FEATURES = ("is_crowd", "is_difficult")


def read(name: str) -> Listing:
    """List a data set's examples; it is downloaded and prepared first where it is not yet.

    Only preparing may need TensorFlow; what is prepared is read without it.

    Args:
        name: as TFDS has it, "cifar10", "coco/2017", "voc:4.0.0".

    Raises:
        EdgeheadsError: there is no such data set, it cannot be prepared, or it has neither
            classes nor boxes.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise MissingDependencyError("tensorflow-datasets", "tfds", "reading tfds: data") from None
    try:
        builder = tfds.builder(name, file_format=_FILE_FORMAT)
        builder.download_and_prepare()
        sources = {split: builder.as_data_source(split=split) for split in builder.info.splits}
    except Exception as error:  # every data set has its own
        raise EdgeheadsError(
            f"tfds:{name} cannot be prepared ({' '.join(str(error).split())[:200]})"
        ) from None
    # TFDS' own mapping is none of Python's: it has no `get`.
    features = {key: builder.info.features[key] for key in builder.info.features}
    objects = _object_features(features)
    label = objects.get("label") if objects else features.get("label")
    names = tuple(getattr(label, "names", None) or ())
    if "image" not in features or not names:
        raise EdgeheadsError(
            f"tfds:{name} has the features {', '.join(features)}; expected {EXPECTED}"
        )
    splits: dict[str, list[Entry]] = {}
    for split, source in sources.items():
        known = split_of(split) if len(sources) > 1 else ""
        if known or len(sources) == 1:
            splits[known] = [
                Entry(f"{split}/{index}", partial(_load, name, split, source, index, len(names)))
                for index in range(len(source))
            ]
    return Listing(splits, LabelNames(classes=names))


def _object_features(features: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the features of the sequence "objects", or {} where it has not both."""
    objects = features.get("objects")
    inner = getattr(objects, "feature", objects)
    if inner is None or "bbox" not in inner or "label" not in inner:
        return {}
    return {key: inner[key] for key in ("bbox", "label")}


def _load(data_set: str, split: str, source: Sequence[Any], index: int, classes: int) -> Sample:
    name = f"tfds:{data_set} {split} {index}"
    example = source[index]
    image = _rgb(np.asarray(example["image"]), name)
    if "objects" not in example:
        label = int(example["label"])
        # Test sets whose labels are kept secret have -1.
        if label < 0:
            raise EdgeheadsError(f"{name} has no label (received {label})")
        return Sample(image=image, name=name, label=label)
    found = example["objects"]
    height, width = image.shape[:2]
    # TFDS has y first, as shares of the image.
    boxes = np.asarray(found["bbox"], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
    boxes = boxes * [width, height, width, height]
    require_few(len(boxes), name)
    crowd = np.zeros(len(boxes), bool)
    for feature in _CROWD_FEATURES:
        if feature in found:
            crowd |= np.asarray(found[feature], bool)
    complaints = Complaints(name)
    labels = np.asarray(found["label"]).reshape(-1)
    known = (labels >= 0) & (labels < classes)
    for label in labels[~known]:
        complaints.add("object of an unknown class, left out", label)
    boxes, labels, crowd = boxes[known], labels[known].tolist(), crowd[known]
    objects = make_objects(boxes.tolist(), labels, crowd.tolist(), (height, width), complaints)
    return Sample(image=image, name=name, objects=objects, problems=complaints.texts())


def _rgb(image: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise EdgeheadsError(
            f"{name} has an image of shape {image.shape} and type {image.dtype}; expected "
            "[H, W, 3] or [H, W, 1] uint8"
        )
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
