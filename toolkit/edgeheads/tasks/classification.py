"""Classification: one class for the whole image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks.base import Array, Evaluator, Loss, Metric, Prediction, Task
from edgeheads.tasks.drawing import class_color, side_by_side
from edgeheads.tasks.task_type import TaskType

__all__ = ["ClassificationEvaluator", "ClassificationTask"]

_SMOOTHING = 0.1
# Where one class occurs this many times as often as another, rare ones weigh more.
_IMBALANCED = 1.5
_ECE_BINS = 15
_DRAWN = 3
_PANEL_WIDTH = 160
_LINE_HEIGHT = 30
# A font of this size has lines of 14 pixels; smaller pictures are enlarged to stand beside it.
_LEAST_HEIGHT = 96


class ClassificationTask(Task):
    """Trains, decodes, scores and draws classes of images."""

    type = TaskType.CLASSIFICATION
    title = "image classification"
    default_recipe = "classification-mobilenet_v2_0.35-64"
    metrics = (
        Metric("top1", "top-1", "", True, 0, 1, 0.01),
        Metric("top5", "top-5", "", True, 0, 1),
        Metric("ece", "ECE", "", False, 0, 1),
    )
    protocol = (
        "over all images; top-5 counts a label among the five greatest probabilities (all of them, "
        "where there are no more than five classes), of equal ones the first class first; ECE is "
        f"the gap between confidence and accuracy in {_ECE_BINS} equal bins of confidence"
    )
    augmentations = ("flip", "scale_crop", "color")

    # Before the Bundle

    def head_options(self, names: LabelNames) -> dict[str, Any]:
        """Return the number of classes."""
        count = len(names.classes)
        if count < 2:
            raise EdgeheadsError(
                f"task 'classification' needs images of at least 2 classes, the data has {count} "
                f"({', '.join(names.classes) or 'none'}); give a folder that has a folder of "
                "images for each class, with --data"
            )
        given = self.options.get("num_classes", count)
        if given != count:
            raise EdgeheadsError(
                f"head.options.num_classes is {given!r}, but the data has {count} classes "
                f"({', '.join(names.classes)}); leave num_classes out of the recipe"
            )
        return {"num_classes": count}

    def labels(self, names: LabelNames) -> tuple[str, ...]:
        """Return the names of the classes."""
        return names.classes

    def check(self, sample: Sample) -> None:
        """Require a class."""
        if sample.label is None:
            raise EdgeheadsError(f"{sample.name} has no class, which task 'classification' needs")
        if sample.label < 0:
            raise EdgeheadsError(
                f"{sample.name}: the class must be an index of the class names, at least 0, "
                f"received {sample.label}"
            )

    def target(
        self, sample: Sample, size: tuple[int, int], decoding: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Return the class, an int32 of no dimensions."""
        return {"label": np.asarray(sample.label, np.int32)}

    def loss(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """See `training.losses.classification_loss`; all classes weigh alike."""
        from edgeheads.training.losses.classification import classification_loss

        return classification_loss(targets["label"], outputs["logits"], label_smoothing=_SMOOTHING)

    def training_loss(
        self,
        names: LabelNames,
        samples: Iterable[Sample],
        task_weights: Mapping[str, float] | None = None,
    ) -> Loss:
        """Return a loss in which rare classes weigh more, where some are much rarer than others."""
        from edgeheads.training.losses.classification import (
            classification_loss,
            compute_class_weights,
        )

        counts = _count(samples, len(names.classes))
        if counts.max() <= _IMBALANCED * counts.min():
            return self.loss
        weights = compute_class_weights(counts)

        def loss(targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
            return classification_loss(
                targets["label"], outputs["logits"], weights, label_smoothing=_SMOOTHING
            )

        return loss

    def edge_outputs(self, model: Any, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the logits: a softmax in int8 rounds what is below 1/256 to nothing.

        Of a graph that was not built by `build_model`, the single output is logits or, if its
        last layer is a softmax, probabilities; a softmax that is a layer of its own is left off.
        """
        layers = {layer.name: layer for layer in model.layers}
        if f"{prefix}_logits" in layers:
            return {"logits": layers[f"{prefix}_logits"].output}, {"encoding": "logits"}
        scores = _single_output(model)
        layer = next(layer for layer in reversed(model.layers) if layer.output is scores)
        activation = getattr(getattr(layer, "activation", None), "__name__", None)
        if type(layer).__name__ == "Softmax" or (
            type(layer).__name__ == "Activation" and activation == "softmax"
        ):
            return {"logits": layer.input}, {"encoding": "logits"}
        if activation == "softmax":
            return {"probabilities": scores}, {"encoding": "probabilities"}
        if activation not in (None, "linear"):
            raise EdgeheadsError(
                "a classification model must end in logits or in a softmax over the classes, "
                f"received one that ends in layer {layer.name!r} with activation {activation!r}"
            )
        return {"logits": scores}, {"encoding": "logits"}

    def baseline(self, samples: Iterable[Sample], names: LabelNames) -> dict[str, Any]:
        """Return how often each class occurs: the most frequent one is always the best guess."""
        counts = _count(samples, len(names.classes))
        shares = counts / counts.sum()
        return {
            "kind": "class frequencies of the training set",
            "probabilities": [float(share) for share in shares],
        }

    # After the Bundle

    def decode(self, outputs: Mapping[str, Array], decoding: Mapping[str, Any]) -> Prediction:
        """Return the probabilities [K] of the classes, of sum 1."""
        if decoding["encoding"] == "probabilities":
            # Of int8, whose steps are 1/256, the sum can miss 1 by a few of them.
            shares = np.clip(outputs["probabilities"][0].astype(np.float64), 0, None)
            shares = shares if shares.sum() > 0 else np.ones_like(shares)
        else:
            logits = outputs["logits"][0].astype(np.float64)
            shares = np.exp(logits - logits.max())
        return {"probabilities": (shares / shares.sum()).astype(np.float32)}

    def predict_baseline(self, baseline: Mapping[str, Any], size: tuple[int, int]) -> Prediction:
        """Return the class frequencies."""
        return {"probabilities": np.asarray(baseline["probabilities"], np.float32)}

    def evaluator(self, decoding: Mapping[str, Any]) -> ClassificationEvaluator:
        """Return a fresh accumulator."""
        return ClassificationEvaluator()

    def draw(
        self, image: NDArray[np.uint8], prediction: Prediction, labels: tuple[str, ...] = ()
    ) -> NDArray[np.uint8]:
        """Return the image beside its three most probable classes, with bars as long as they are.

        An image of less than 96 rows is enlarged by a whole factor.
        """
        factor = -(-_LEAST_HEIGHT // image.shape[0])
        shown = image.repeat(factor, axis=0).repeat(factor, axis=1)
        return side_by_side(shown, _bars(prediction["probabilities"], labels, shown.shape[0]))

    def draw_label(
        self, image: NDArray[np.uint8], sample: Sample, names: LabelNames
    ) -> NDArray[np.uint8]:
        """Return the image with the name of its class in the top left corner."""
        from PIL import Image, ImageDraw

        assert sample.label is not None  # noqa: S101 - `check` has seen it
        text = _name_of(sample.label, names.classes)
        canvas = Image.fromarray(image)
        draw = ImageDraw.Draw(canvas)
        right, bottom = draw.textbbox((2, 0), text)[2:]
        draw.rectangle((0, 0, right + 2, bottom + 2), fill=class_color(sample.label))
        draw.text((2, 0), text, fill=(0, 0, 0))
        return np.asarray(canvas)


class ClassificationEvaluator(Evaluator):
    """Top-1 and top-5 accuracy, and the expected calibration error (Guo et al. 2017, "On
    Calibration of Modern Neural Networks", eq. 3).
    """

    def __init__(self) -> None:
        self._images = self._top1 = self._top5 = 0
        # Per bin: images, the sum of their confidences, how many of them are right.
        self._bins = np.zeros((_ECE_BINS, 3))
        self._confidence = [1.0, 0.0]

    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Compare the probabilities [K] with the image's class."""
        probabilities = prediction["probabilities"]
        if not np.isfinite(probabilities).all():
            raise EdgeheadsError(
                f"the model predicts NaN or infinite probabilities on {sample.name}; "
                "train or convert it again"
            )
        if sample.label is None or sample.label >= len(probabilities):
            raise EdgeheadsError(
                f"{sample.name} is of class {sample.label}, but the model has "
                f"{len(probabilities)} classes; evaluate on data with the model's class names"
            )
        order = np.argsort(-probabilities, kind="stable")
        rank = int(np.flatnonzero(order == sample.label)[0])
        confidence = float(probabilities[order[0]])
        self._images += 1
        self._top1 += rank == 0
        self._top5 += rank < 5
        # Bins are open at the lower end: (0, 1/15], (1/15, 2/15], ...
        place = min(max(int(np.ceil(confidence * _ECE_BINS)) - 1, 0), _ECE_BINS - 1)
        self._bins[place] += 1, confidence, rank == 0
        self._confidence = [
            min(self._confidence[0], confidence),
            max(self._confidence[1], confidence),
        ]

    def result(self) -> dict[str, Any]:
        """Return the shares of images, the count, and the range of confidence."""
        if not self._images:
            raise EdgeheadsError("there is no image to score; give data with classes")
        _, confidence, right = self._bins.T
        return {
            "metrics": {
                "top1": self._top1 / self._images,
                "top5": self._top5 / self._images,
                "ece": float(np.abs(confidence - right).sum() / self._images),
            },
            "counts": {"images": self._images},
            "ranges": {"confidence": self._confidence},
        }


def _count(samples: Iterable[Sample], classes: int) -> NDArray[np.intp]:
    """Return how often each class occurs."""
    labels = [sample.label for sample in samples if sample.label is not None]
    if not labels or max(labels) >= classes:
        raise EdgeheadsError(
            f"the samples must be of the {classes} classes that the data names, received "
            f"{'a sample of class ' + str(max(labels)) if labels else 'no sample with a class'}"
        )
    return np.bincount(labels, minlength=classes)


def _single_output(model: Any) -> Any:
    own = model.output
    outputs = list(own.values()) if isinstance(own, dict) else [own]
    shapes = [tuple(getattr(tensor, "shape", ())) for tensor in outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2 or (shapes[0][1] or 0) < 2:
        raise EdgeheadsError(
            "a classification model must return one score for each class, [B, K] with K at least "
            f"2, received {shapes}"
        )
    return outputs[0]


def _name_of(index: int, labels: tuple[str, ...]) -> str:
    return labels[index] if index < len(labels) else f"class {index}"


def _bars(
    probabilities: NDArray[np.floating[Any]], labels: tuple[str, ...], height: int
) -> NDArray[np.uint8]:
    """Return a panel [height, w, 3] of the greatest probabilities, a name and a bar each."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (_PANEL_WIDTH, height), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for row, index in enumerate(np.argsort(-probabilities, kind="stable")[:_DRAWN]):
        top, share = row * _LINE_HEIGHT + 4, float(probabilities[index])
        draw.text((4, top), f"{share:.0%} {_name_of(int(index), labels)}", fill=(0, 0, 0))
        length = round(share * (_PANEL_WIDTH - 8))
        draw.rectangle((4, top + 14, _PANEL_WIDTH - 5, top + 20), fill=(230, 230, 230))
        if length:
            color = class_color(int(index))
            draw.rectangle((4, top + 14, 3 + length, top + 20), fill=color)
    return np.asarray(canvas)
