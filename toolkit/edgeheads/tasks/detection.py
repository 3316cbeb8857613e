"""Object detection: boxes, each with a class and a score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.sample import LabelNames, Objects, Sample
from edgeheads.errors import EdgeheadsError
from edgeheads.heads.anchors import (
    ANCHOR_RATIOS,
    ANCHOR_SCALES,
    AnchorGenerator,
    AnchorLayout,
    check_anchor_count,
)
from edgeheads.heads.boxes import Detections, decode_detections, encode_boxes
from edgeheads.tasks.base import Array, Evaluator, Metric, Prediction, Task, part_of
from edgeheads.tasks.coco_metrics import MAX_DETECTIONS, CocoEvaluator
from edgeheads.tasks.drawing import class_color, draw_boxes, side_by_side
from edgeheads.tasks.task_type import TaskType
from edgeheads.tasks.typical_boxes import typical_boxes
from edgeheads.training.matching import match_anchors

__all__ = ["SHOWN_SCORE", "DetectionTask"]

SHOWN_SCORE = 0.3
"""What scores less is not drawn. Metrics count it: they need the whole curve."""

_SUPPRESSION = {"score_threshold": 0.01, "iou_threshold": 0.6, "limit": MAX_DETECTIONS}


class DetectionTask(Task):
    """Trains, decodes, scores and draws boxes."""

    type = TaskType.DETECTION
    title = "object detection"
    default_recipe = "detection-mobilenet_v2_0.35-128"
    metrics: tuple[Metric, ...] = (
        Metric("map", "mAP", "", True, 0, 1, 0.015),
        Metric("ap50", "AP50", "", True, 0, 1),
        Metric("ap75", "AP75", "", True, 0, 1),
        Metric("ar100", "AR100", "", True, 0, 1),
    )
    protocol = (
        "COCO box AP by pycocotools, over the classes that the test set has, at IoU 0.50 to 0.95, "
        "100 detections an image, boxes at the label's size; crowd objects do not count"
    )
    augmentations = ("flip", "color")

    # Before the Bundle

    def head_options(self, names: LabelNames) -> dict[str, Any]:
        """Return the number of classes."""
        if not names.classes:
            raise EdgeheadsError(
                f"the data names no classes of objects, which task {self.type.value!r} needs; "
                "give data with labelled boxes"
            )
        return {"num_classes": len(names.classes)}

    def labels(self, names: LabelNames) -> tuple[str, ...]:
        """Return the classes of objects."""
        return names.classes

    def check(self, sample: Sample) -> None:
        """Require objects; there may be none of them in the image."""
        if sample.objects is None:
            raise EdgeheadsError(
                f"{sample.name} has no objects with boxes, which task {self.type.value!r} needs"
            )
        if not np.isfinite(sample.objects.boxes).all():
            raise EdgeheadsError(f"{sample.name} has boxes with NaN or infinite corners")

    def target(
        self, sample: Sample, size: tuple[int, int], decoding: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Return classes [A] int32, with `matching.NOTHING` and `IGNORED`, and regressions [A, 4].

        Of a box, the part inside the image is learned.
        """
        targets, _, _ = self._match(sample, decoding)
        return targets

    def _match(
        self, sample: Sample, decoding: Mapping[str, Any]
    ) -> tuple[dict[str, Array], Objects, NDArray[np.int32]]:
        """Return the targets, the objects inside the image, and the row of them that each anchor
        [A] is to find.
        """
        layout = AnchorLayout.from_json(decoding["anchors"])
        objects, boxes = _inside(sample)
        matched = match_anchors(layout, boxes, objects.crowd)
        found = np.flatnonzero(matched >= 0)
        classes = matched.copy()
        classes[found] = objects.classes[matched[found]]
        regressions = np.zeros((len(matched), 4), np.float32)
        regressions[found] = encode_boxes(boxes[matched[found]], layout.boxes[found])
        return {"classes": classes, "regressions": regressions}, objects, matched

    def loss(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """See `training.losses.detection.detection_loss`."""
        from edgeheads.training.losses.detection import detection_loss

        return detection_loss(targets, outputs)

    def edge_outputs(self, model: Any, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return logits and regressions of every anchor, and what the anchors are.

        They stay two tensors: in one, the small regressions would share the logits' int8 scale.
        """
        outputs = {
            name: part_of(model, prefix, name) for name in ("classifications", "regressions")
        }
        layout = AnchorLayout(
            AnchorGenerator(
                tuple(self.options.get("anchor_scales", ANCHOR_SCALES)),
                tuple(self.options.get("anchor_ratios", ANCHOR_RATIOS)),
            ),
            _grids(model, prefix),
        )
        check_anchor_count(
            len(layout.boxes), outputs["classifications"].shape[1], "classifications"
        )
        return outputs, {"anchors": layout.to_json(), **_SUPPRESSION}

    def baseline(self, samples: Iterable[Sample], names: LabelNames) -> dict[str, Any]:
        """Return where objects of each class usually are, and how often."""
        boxes, classes, images = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int32)], 0
        for sample in samples:
            objects, inside = _inside(sample)
            boxes.append(inside[~objects.crowd])
            classes.append(objects.classes[~objects.crowd])
            images += 1
        return {
            "kind": "most typical boxes of the training set",
            **typical_boxes(np.concatenate(boxes), np.concatenate(classes), images),
        }

    # After the Bundle

    def decode(self, outputs: Mapping[str, Array], decoding: Mapping[str, Any]) -> Prediction:
        """Return boxes [N, 4] in fractions of the image, scores [N] and classes [N], best first."""
        return _as_prediction(self._detect(outputs, decoding))

    def _detect(self, outputs: Mapping[str, Array], decoding: Mapping[str, Any]) -> Detections:
        return decode_detections(
            outputs["classifications"][0],
            outputs["regressions"][0],
            AnchorLayout.from_json(decoding["anchors"]).boxes,
            **{name: decoding[name] for name in _SUPPRESSION},
        )

    def predict_baseline(self, baseline: Mapping[str, Any], size: tuple[int, int]) -> Prediction:
        """Return the same boxes for every image."""
        return {
            "boxes": np.array(baseline["boxes"], np.float32).reshape(-1, 4),
            "scores": np.array(baseline["scores"], np.float32),
            "classes": np.array(baseline["classes"], np.int64),
        }

    def evaluator(self, decoding: Mapping[str, Any]) -> Evaluator:
        """Return a fresh accumulator."""
        return CocoEvaluator(
            {
                "map": ("bbox", "AP"),
                "ap50": ("bbox", "AP50"),
                "ap75": ("bbox", "AP75"),
                "ar100": ("bbox", "AR"),
            }
        )

    def draw(
        self, image: NDArray[np.uint8], prediction: Prediction, labels: tuple[str, ...] = ()
    ) -> NDArray[np.uint8]:
        """Return the image beside a copy with the boxes that score at least `SHOWN_SCORE`."""
        shown = prediction["scores"] >= SHOWN_SCORE
        classes = prediction["classes"][shown].tolist()
        texts = [
            f"{_name(labels, label)} {score:.2f}"
            for label, score in zip(classes, prediction["scores"][shown], strict=True)
        ]
        colors = [class_color(label) for label in classes]
        return side_by_side(image, draw_boxes(image, prediction["boxes"][shown], texts, colors))

    def draw_label(
        self, image: NDArray[np.uint8], sample: Sample, names: LabelNames
    ) -> NDArray[np.uint8]:
        """Return the image with the labelled boxes, those of groups in grey."""
        assert sample.objects is not None  # noqa: S101 - `check` has seen it
        texts, colors = label_texts(sample.objects, names), label_colors(sample.objects)
        return draw_boxes(image, _fractions(sample), texts, colors)


def label_texts(objects: Objects, names: LabelNames) -> list[str]:
    """Return what is written at each labelled object."""
    return [
        _name(names.classes, label) + (" (crowd)" if crowd else "")
        for label, crowd in zip(objects.classes.tolist(), objects.crowd, strict=True)
    ]


def label_colors(objects: Objects) -> list[tuple[int, int, int]]:
    """Return the colour of each labelled object: of its class, or grey for a group."""
    return [
        (160, 160, 160) if crowd else class_color(label)
        for label, crowd in zip(objects.classes.tolist(), objects.crowd, strict=True)
    ]


def _name(labels: Sequence[str], label: int) -> str:
    return labels[label] if label < len(labels) else str(label)


def _fractions(sample: Sample) -> NDArray[np.float32]:
    """The sample's boxes [N, 4] in fractions of its image."""
    assert sample.objects is not None  # noqa: S101 - `check` has seen it
    height, width = sample.image.shape[:2]
    size = np.array((width, height) * 2, np.float32)
    return (sample.objects.boxes / size).astype(np.float32)


def _inside(sample: Sample) -> tuple[Objects, NDArray[np.float32]]:
    """The objects that reach into the image, and the part [N, 4] of their boxes that does."""
    assert sample.objects is not None  # noqa: S101 - `check` has seen it
    boxes = np.clip(_fractions(sample), 0, 1)
    there = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return sample.objects.subset(there), boxes[there]


def _as_prediction(found: Detections) -> Prediction:
    return {"boxes": found.boxes, "scores": found.scores, "classes": found.classes}


def _grids(model: Any, prefix: str) -> tuple[tuple[int, int], ...]:
    """The (rows, columns) of each level: of what the head lays flat, level by level."""
    flat = {layer.name: layer for layer in model.layers}
    grids: list[tuple[int, int]] = []
    while (name := f"{prefix}_classify_{len(grids)}") in flat:
        rows, columns = flat[name].input.shape[1:3]
        grids.append((rows, columns))
    return tuple(grids)
