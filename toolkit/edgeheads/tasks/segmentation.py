"""Semantic segmentation: one class for every pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.images import resize_nearest
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks.base import Array, Evaluator, Loss, Metric, Prediction, Task, part_of
from edgeheads.tasks.drawing import (
    class_color,
    draw_points,
    overlay_masks,
    side_by_side,
    with_legend,
)
from edgeheads.tasks.maps import resize_bilinear
from edgeheads.tasks.task_type import TaskType

__all__ = ["SegmentationEvaluator", "SegmentationTask"]

# Cells a side of the grid on which the baseline knows what is usual.
_GRID = 16
# A class that covers less of a label than this gets no name in its drawing.
_LEAST_NAMED = 0.01


class SegmentationTask(Task):
    """Trains, decodes, scores and draws class maps."""

    type = TaskType.SEGMENTATION
    title = "semantic segmentation"
    default_recipe = "segmentation-mobilenet_v2_0.35-128"
    metrics = (
        Metric("miou", "mIoU", "", True, 0, 1, 0.01),
        Metric("pixel_accuracy", "pixel acc.", "", True, 0, 1),
        Metric("mean_accuracy", "class acc.", "", True, 0, 1),
    )
    protocol = (
        "one confusion matrix over the labelled pixels of all images, at the label's resolution "
        "(logits resized bilinearly, then the greatest); mIoU is the mean over the classes that "
        "label or prediction has, class accuracy the mean over those that the label has"
    )
    augmentations = ("flip", "color")

    def head_options(self, names: LabelNames) -> dict[str, Any]:
        """Return the number of classes; a recipe may ask for one logit where there are two."""
        count = len(names.semantic)
        if count < 2:
            raise EdgeheadsError(
                "task 'segmentation' needs labels with at least 2 classes of pixels, the data has "
                f"{count} ({', '.join(names.semantic) or 'none'}); give a folder of images and "
                "masks with --data"
            )
        given = self.options.get("num_classes", count)
        if given != count and (given, count) != (1, 2):
            raise EdgeheadsError(
                f"head.options.num_classes is {given!r}, but the data has {count} classes of "
                f"pixels ({', '.join(names.semantic)}); leave num_classes out of the recipe"
            )
        return {"num_classes": given}

    def labels(self, names: LabelNames) -> tuple[str, ...]:
        """Return the names of the classes."""
        return names.semantic

    def check(self, sample: Sample) -> None:
        """Require a class map of the image's size."""
        semantic = sample.semantic
        if semantic is None:
            raise EdgeheadsError(f"{sample.name} has no class map, which task 'segmentation' needs")
        if semantic.shape != sample.image.shape[:2]:
            raise EdgeheadsError(
                f"{sample.name}: the class map must have the image's size "
                f"{sample.image.shape[:2]}, received {semantic.shape}"
            )

    def target(
        self, sample: Sample, size: tuple[int, int], decoding: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Return classes [h, w] int32, of the logits' size; `IGNORED` where nobody knows."""
        assert sample.semantic is not None  # noqa: S101 - `check` has seen it
        height, width = decoding.get("map_size", size)
        return {"semantic": resize_nearest(sample.semantic, (height, width))}

    def loss(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """See `training.losses.segmentation_loss`; all classes weigh alike."""
        from edgeheads.training.losses.segmentation import segmentation_loss

        return segmentation_loss(targets["semantic"], outputs["logits"])

    def training_loss(
        self,
        names: LabelNames,
        samples: Iterable[Sample],
        task_weights: Mapping[str, float] | None = None,
    ) -> Loss:
        """Return a loss in which a pixel of a rare class weighs more."""
        from edgeheads.training.losses.classification import compute_class_weights
        from edgeheads.training.losses.segmentation import segmentation_loss

        counts = np.zeros(len(names.semantic))
        for sample in samples:
            counts += _count(sample, len(counts))
        # Of the root: pixels of two classes may differ in number a thousandfold, and weights that
        # make up for all of that drown large classes in false alarms of small ones.
        weights = compute_class_weights(np.sqrt(counts))

        def loss(targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
            return segmentation_loss(targets["semantic"], outputs["logits"], weights)

        return loss

    def edge_outputs(self, model: Any, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the logits: the greatest is the same after a softmax, which int8 loses most in."""
        logits = part_of(model, prefix, "logits")
        _, height, width, channels = logits.shape
        return {"logits": logits}, {
            "num_classes": max(2, channels),
            "map_size": [height, width],
        }

    def baseline(self, samples: Iterable[Sample], names: LabelNames) -> dict[str, Any]:
        """Return the most frequent class of each place: what knows where things usually are."""
        classes = len(names.semantic)
        counts = np.zeros((_GRID * _GRID, classes), np.int64)
        for sample in samples:
            self.check(sample)
            semantic: Any = sample.semantic
            rows, columns = (np.arange(side) * _GRID // side for side in semantic.shape)
            cells = rows[:, None] * _GRID + columns
            known = semantic >= 0
            pairs = cells[known] * classes + semantic[known]
            counts += np.bincount(pairs, minlength=counts.size).reshape(counts.shape)
        # A place that no pixel is known of takes what is most frequent anywhere.
        best = np.where(counts.any(axis=1), counts.argmax(axis=1), counts.sum(axis=0).argmax())
        return {
            "kind": f"most frequent class at each place of a {_GRID}x{_GRID} grid",
            "classes": best.reshape(_GRID, _GRID).tolist(),
        }

    def decode(self, outputs: Mapping[str, Array], decoding: Mapping[str, Any]) -> Prediction:
        """Return logits [h, w, classes] and the classes [h, w] of the greatest.

        A network of one logit gives two classes, the first of which has logit 0.
        """
        logits = np.asarray(outputs["logits"][0], np.float32)
        if logits.shape[-1] == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=-1)
        return {"logits": logits, "classes": logits.argmax(axis=-1).astype(np.int32)}

    def predict_baseline(self, baseline: Mapping[str, Any], size: tuple[int, int]) -> Prediction:
        """Return the same class map for every image."""
        return {"classes": resize_nearest(np.array(baseline["classes"], np.int32), size)}

    def evaluator(self, decoding: Mapping[str, Any]) -> SegmentationEvaluator:
        """Return an empty confusion matrix."""
        return SegmentationEvaluator(decoding["num_classes"])

    def draw(
        self, image: NDArray[np.uint8], prediction: Prediction, labels: tuple[str, ...] = ()
    ) -> NDArray[np.uint8]:
        """Return the image, the image coloured by class, and what the colours stand for."""
        classes = _classes_at(prediction, image.shape[:2])
        areas = np.bincount(classes.ravel())
        shown = [int(one) for one in np.argsort(-areas, kind="stable") if areas[one]]
        entries = [(_name(one, labels), class_color(one)) for one in shown]
        return with_legend(side_by_side(image, _colored(image, classes)), entries)

    def draw_label(
        self, image: NDArray[np.uint8], sample: Sample, names: LabelNames
    ) -> NDArray[np.uint8]:
        """Return the image coloured by class, as it is where nobody knows, with the names."""
        assert sample.semantic is not None  # noqa: S101 - `check` has seen it
        classes = resize_nearest(sample.semantic, image.shape[:2])
        texts, points, colors = [], [], []
        for one in np.unique(classes[classes >= 0]):
            rows, columns = np.nonzero(classes == one)
            if len(rows) >= _LEAST_NAMED * classes.size:
                # The middle one of the class's pixels, row by row, is one of them.
                middle = len(rows) // 2
                points.append((columns[middle] + 0.5, rows[middle] + 0.5))
                texts.append(_name(int(one), names.semantic))
                colors.append(class_color(int(one)))
        height, width = classes.shape
        places = np.array(points, np.float32).reshape(-1, 2) / (width, height)
        return draw_points(_colored(image, classes), places, texts, colors, [True] * len(texts))


class SegmentationEvaluator(Evaluator):
    """Mean IoU (Everingham et al. 2015, Pascal VOC) and accuracies of one confusion matrix.

    Args:
        num_classes: at least 2.
    """

    def __init__(self, num_classes: int) -> None:
        self._confusion = np.zeros((num_classes, num_classes), np.int64)
        self._images = 0
        self._left_out = 0
        self._ignored = 0

    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Count one image's pixels; one without a labelled pixel counts as left out."""
        truth = sample.semantic
        if truth is None:
            raise EdgeheadsError(f"{sample.name} has no class map to evaluate against")
        if "logits" in prediction and not np.isfinite(prediction["logits"]).all():
            raise EdgeheadsError(
                f"the model predicts NaN or infinite logits on {sample.name}; "
                "train or convert it again"
            )
        count = len(self._confusion)
        _require_known_classes(sample, count)
        known = truth >= 0
        self._ignored += int((~known).sum())
        if not known.any():
            self._left_out += 1
            return
        self._images += 1
        predicted = _classes_at(prediction, truth.shape)
        pairs = truth[known].astype(np.int64) * count + predicted[known]
        self._confusion += np.bincount(pairs, minlength=count * count).reshape(count, count)

    def result(self) -> dict[str, Any]:
        """Return the metrics, the counts, and "per_class": the IoU of each, None where absent."""
        if not self._images:
            raise EdgeheadsError(
                f"none of {self._left_out} images has a labelled pixel; check the class maps"
            )
        hits = np.diagonal(self._confusion)
        labelled, predicted = self._confusion.sum(axis=1), self._confusion.sum(axis=0)
        union = labelled + predicted - hits
        iou = hits[union > 0] / union[union > 0]
        accuracy = hits[labelled > 0] / labelled[labelled > 0]
        return {
            "metrics": {
                "miou": float(iou.mean()),
                "pixel_accuracy": float(hits.sum() / labelled.sum()),
                "mean_accuracy": float(accuracy.mean()),
            },
            "counts": {
                "images": self._images,
                "images_left_out": self._left_out,
                "pixels": int(labelled.sum()),
                "pixels_ignored": self._ignored,
            },
            "ranges": {},
            "per_class": {
                "iou": [
                    h / u if u else None for h, u in zip(hits.tolist(), union.tolist(), strict=True)
                ],
                "pixels": labelled.tolist(),
            },
        }


def _classes_at(prediction: Prediction, size: tuple[int, ...]) -> NDArray[np.int64]:
    """Return a prediction's classes at (height, width).

    Logits are resized, not classes: the border between two classes then falls where their logits
    are equal, not on a step of the smaller map.
    """
    if "logits" not in prediction:
        resized: NDArray[np.int64] = resize_nearest(prediction["classes"], (size[0], size[1]))
        return resized
    # Class by class: a photograph's worth of logits for every class at once fills the memory.
    classes, greatest = np.zeros(size, np.int64), np.full(size, -np.inf, np.float32)
    for one in range(prediction["logits"].shape[-1]):
        logits = resize_bilinear(prediction["logits"][..., one], size)
        above = logits > greatest
        classes[above], greatest[above] = one, logits[above]
    return classes


def _count(sample: Sample, classes: int) -> NDArray[np.int64]:
    """Return how many pixels [classes] each class has."""
    _require_known_classes(sample, classes)
    semantic: Any = sample.semantic
    return np.bincount(semantic[semantic >= 0], minlength=classes)


def _require_known_classes(sample: Sample, classes: int) -> None:
    assert sample.semantic is not None  # noqa: S101 - `check` has seen it
    greatest = int(sample.semantic.max())
    if greatest >= classes:
        raise EdgeheadsError(
            f"{sample.name} has pixels of class {greatest}, expected 0 to {classes - 1}, or -1 "
            "where nobody knows; check the class names of the data"
        )


def _colored(image: NDArray[np.uint8], classes: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the image, half covered by the colours of its classes where they are known."""
    shown = np.unique(classes[classes >= 0])
    colors = [class_color(int(one)) for one in shown]
    return overlay_masks(image, classes == shown[:, None, None], colors)


def _name(index: int, labels: tuple[str, ...]) -> str:
    return labels[index] if index < len(labels) else f"class {index}"
