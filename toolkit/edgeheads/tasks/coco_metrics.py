"""Average precision as the COCO benchmark defines it, by pycocotools."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.sample import Objects, Sample
from edgeheads.errors import EdgeheadsError, MissingDependencyError
from edgeheads.heads.masks import paste_masks
from edgeheads.tasks.base import Evaluator, Prediction

__all__ = ["MAX_DETECTIONS", "CocoEvaluator"]

MAX_DETECTIONS = 100
"""Of one image; the benchmark takes no more of one class."""

# COCO's IoU thresholds are 0.50, 0.55, ... 0.95; these are their places.
_AT_50, _AT_75 = 0, 5


class CocoEvaluator(Evaluator):
    """Mean average precision over classes and IoU thresholds (Lin et al. 2014).

    A class of which the labels have no object does not count. Objects that are `crowd` are
    neither missed nor wrong to find.

    Args:
        metrics: {name: (what overlaps, statistic)}: "bbox" or "segm"; "AP" is the mean over the
            IoU thresholds 0.50 to 0.95, "AP50" and "AP75" are at one of them, "AR" is the mean
            recall over the thresholds, of 100 detections an image.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """

    def __init__(self, metrics: Mapping[str, tuple[str, str]]) -> None:
        self._coco, self._eval, self._masks = _pycocotools()
        self._metrics = dict(metrics)
        self._with_masks = any(kind == "segm" for kind, _ in metrics.values())
        self._sizes: list[tuple[int, ...]] = []
        self._objects: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []
        self._per_image = [math.inf, -math.inf]

    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Take one image's boxes, at the size of its labels, into account."""
        objects = sample.objects
        if objects is None or (self._with_masks and objects.masks is None):
            kind = "masks of objects" if self._with_masks else "objects"
            raise EdgeheadsError(f"{sample.name} has no {kind} to evaluate against")
        boxes, scores = prediction["boxes"], prediction["scores"]
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise EdgeheadsError(
                f"the model predicts NaN or infinite boxes on {sample.name}; "
                "train or convert it again"
            )
        self._sizes.append(sample.image.shape[:2])
        self._add_objects(objects)
        self._add_found(prediction)
        single = int(np.count_nonzero(~objects.crowd))
        self._per_image[0] = min(self._per_image[0], single)
        self._per_image[1] = max(self._per_image[1], single)

    def _add_objects(self, objects: Objects) -> None:
        areas = objects.areas()
        for index in range(len(objects)):
            entry = self._entry(self._objects, objects.classes[index], objects.boxes[index])
            entry |= {"area": float(areas[index]), "iscrowd": int(objects.crowd[index])}
            if self._with_masks:
                assert objects.masks is not None  # noqa: S101 - `update` has seen it
                entry["segmentation"] = self._encode(objects.masks[index])

    def _add_found(self, prediction: Prediction) -> None:
        height, width = self._sizes[-1]
        boxes, scores = prediction["boxes"], prediction["scores"]
        masks = prediction.get("mask_logits")
        for index in np.argsort(-scores, kind="stable")[:MAX_DETECTIONS]:
            box = boxes[index] * (width, height, width, height)
            entry = self._entry(self._found, prediction["classes"][index], box)
            entry |= {"score": float(scores[index]), "area": entry["bbox"][2] * entry["bbox"][3]}
            if self._with_masks:
                assert masks is not None  # noqa: S101 - part of such a task's prediction
                one = slice(index, index + 1)
                [mask] = paste_masks(masks[one], boxes[one], (height, width))
                entry["segmentation"] = self._encode(mask)

    def _entry(
        self, entries: list[dict[str, Any]], label: int, box: NDArray[Any]
    ) -> dict[str, Any]:
        """Append an object of the latest image to a list, and return it."""
        left, top, right, bottom = (float(value) for value in box)
        entry: dict[str, Any] = {
            # pycocotools takes the number 0 for "matched with none".
            "id": len(entries) + 1,
            "image_id": len(self._sizes),
            "category_id": int(label),
            "bbox": [left, top, right - left, bottom - top],
        }
        entries.append(entry)
        return entry

    def _encode(self, mask: NDArray[np.bool_]) -> Any:
        """Run lengths of a mask [H, W]: of many images, masks themselves would fill the memory."""
        return self._masks.encode(np.asfortranarray(mask, np.uint8))

    def result(self) -> dict[str, Any]:
        """Return the metrics, how many objects and detections there were, and their ranges."""
        single = sum(not entry["iscrowd"] for entry in self._objects)
        if not single:
            raise EdgeheadsError(
                f"none of {len(self._sizes)} images has an object that counts; "
                "evaluate on data with labelled objects"
            )
        statistics = {kind: self._statistics(kind) for kind, _ in self._metrics.values()}
        ranges: dict[str, list[float]] = {"objects_per_image": list(self._per_image)}
        if scores := [entry["score"] for entry in self._found]:
            ranges["score"] = [min(scores), max(scores)]
        return {
            "metrics": {
                name: statistics[kind][which] for name, (kind, which) in self._metrics.items()
            },
            "counts": {
                "images": len(self._sizes),
                "objects": single,
                "crowd_objects": len(self._objects) - single,
                "detections": len(self._found),
            },
            "ranges": ranges,
        }

    def _statistics(self, kind: str) -> dict[str, float]:
        # pycocotools reports its progress with print().
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = self._eval(self._index(self._objects), self._index(self._found), kind)
            params = evaluation.params
            params.areaRng, params.areaRngLbl = params.areaRng[:1], params.areaRngLbl[:1]
            params.maxDets = [MAX_DETECTIONS]
            evaluation.evaluate()
            evaluation.accumulate()
        # [IoU thresholds, recall steps, classes, areas, limits]; -1 for classes without an object.
        precision = evaluation.eval["precision"][..., 0, 0]
        recall = evaluation.eval["recall"][..., 0, 0]
        there = recall[0] > -1
        return {
            "AP": float(precision[..., there].mean()),
            "AP50": float(precision[_AT_50][..., there].mean()),
            "AP75": float(precision[_AT_75][..., there].mean()),
            "AR": float(recall[..., there].mean()),
        }

    def _index(self, entries: list[dict[str, Any]]) -> Any:
        index = self._coco()
        labels = {entry["category_id"] for entry in (*self._objects, *self._found)}
        index.dataset = {
            "images": [
                {"id": number, "height": height, "width": width}
                for number, (height, width) in enumerate(self._sizes, start=1)
            ],
            "categories": [{"id": label} for label in sorted(labels)],
            # Copied: pycocotools writes into them.
            "annotations": [dict(entry) for entry in entries],
        }
        index.createIndex()
        return index


def _pycocotools() -> tuple[Any, Any, Any]:
    try:
        from pycocotools import mask
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise MissingDependencyError("pycocotools", "metrics", "average precision") from None
    return COCO, COCOeval, mask
