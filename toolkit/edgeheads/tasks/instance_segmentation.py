"""Instance segmentation: boxes, each with a class, a score and the pixels of its object."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.images import resize_nearest
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError
from edgeheads.heads.masks import box_masks, paste_masks
from edgeheads.tasks.base import Array, Evaluator, Metric, Prediction, part_of
from edgeheads.tasks.coco_metrics import CocoEvaluator
from edgeheads.tasks.detection import SHOWN_SCORE, DetectionTask
from edgeheads.tasks.drawing import class_color, overlay_masks
from edgeheads.tasks.task_type import TaskType

__all__ = ["InstanceSegmentationTask"]

# Cells of a mask in the frame of its box, as COCO's Mask R-CNN has it.
_MASK_SIZE = (28, 28)

# Masks that one image trains at a time. An object has several anchors; another few of them are
# drawn each time the image comes.
_TRAINED_MASKS = 16


class InstanceSegmentationTask(DetectionTask):
    """Trains, decodes, scores and draws boxes with masks."""

    type = TaskType.INSTANCE_SEGMENTATION
    title = "instance segmentation"
    default_recipe = "instance-segmentation-mobilenet_v2_0.35-128"
    metrics = (
        Metric("map", "mask mAP", "", True, 0, 1, 0.015),
        Metric("ap50", "mask AP50", "", True, 0, 1),
        Metric("ap75", "mask AP75", "", True, 0, 1),
        Metric("box_map", "box mAP", "", True, 0, 1, 0.015),
    )
    protocol = (
        "COCO mask AP and box AP by pycocotools, over the classes that the test set has, at IoU "
        "0.50 to 0.95, 100 detections an image, masks and boxes at the label's size; crowd "
        "objects do not count"
    )

    # Before the Bundle

    def check(self, sample: Sample) -> None:
        """Require objects with masks."""
        super().check(sample)
        if sample.objects is not None and sample.objects.masks is None:
            raise EdgeheadsError(
                f"{sample.name} has boxes but no masks, which task {self.type.value!r} needs; "
                "convert --task detection learns from boxes alone"
            )

    def target(
        self, sample: Sample, size: tuple[int, int], decoding: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Return a detector's targets, and the masks of up to 16 anchors with an object.

        masks [M, h, w] int8, at the prototypes' resolution: 1 on the object, 0 beside it, -1
        outside its box; mask_anchors [M] int32, their rows. Unused masks are -1 throughout.
        """
        targets, objects, matched = self._match(sample, decoding)
        shape = tuple(decoding["prototypes"])
        rows = _draw_rows(np.flatnonzero(matched >= 0), sample.image)
        chosen = objects.subset(matched[rows].astype(np.intp))
        assert chosen.masks is not None  # noqa: S101 - `check` has seen it
        masks = np.full((_TRAINED_MASKS, *shape), -1, np.int8)
        scale = np.array([shape[1] / sample.image.shape[1], shape[0] / sample.image.shape[0]] * 2)
        for mask, whole, box in zip(masks, chosen.masks, chosen.boxes * scale, strict=False):
            left, top = np.maximum(np.floor(box[:2]).astype(int), 0)
            right, bottom = np.ceil(box[2:]).astype(int)
            frame = np.s_[top:bottom, left:right]
            mask[frame] = resize_nearest(whole, (shape[0], shape[1]))[frame]
        anchors = np.zeros(_TRAINED_MASKS, np.int32)
        anchors[: len(rows)] = rows
        return {**targets, "masks": masks, "mask_anchors": anchors}

    def loss(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """See `training.losses.instance_segmentation.instance_loss`."""
        from edgeheads.training.losses.instance_segmentation import instance_loss

        return instance_loss(targets, outputs)

    def edge_outputs(self, model: Any, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a detector's outputs, the coefficients of every anchor and the prototypes.

        Masks are mixed after the file, for the boxes that are left: for every anchor they would
        cost a hundred times more, and int8 has no product of two computed matrices everywhere.
        """
        outputs, decoding = super().edge_outputs(model, prefix)
        outputs |= {name: part_of(model, prefix, name) for name in ("coefficients", "prototypes")}
        mask_size = self.options.get("mask_size", _MASK_SIZE)
        return outputs, {
            **decoding,
            "prototypes": list(outputs["prototypes"].shape[1:3]),
            "mask_size": list(mask_size),
        }

    def baseline(self, samples: Iterable[Sample], names: LabelNames) -> dict[str, Any]:
        """Return a detector's typical boxes, to be filled with an ellipse."""
        typical = super().baseline(samples, names)
        return {**typical, "kind": "ellipses in the most typical boxes of the training set"}

    # After the Bundle

    def decode(self, outputs: Mapping[str, Array], decoding: Mapping[str, Any]) -> Prediction:
        """Return a detector's prediction, and mask_logits [N, rows, columns] in the frame of each
        box: above 0 is the object; see `heads.masks.paste_masks`.
        """
        found = self._detect(outputs, decoding)
        logits = box_masks(
            outputs["prototypes"][0],
            outputs["coefficients"][0][found.anchors],
            found.boxes,
            tuple(decoding["mask_size"]),
        )
        return {
            "boxes": found.boxes,
            "scores": found.scores,
            "classes": found.classes,
            "mask_logits": logits,
        }

    def predict_baseline(self, baseline: Mapping[str, Any], size: tuple[int, int]) -> Prediction:
        """Return the same boxes and ellipses for every image."""
        prediction = super().predict_baseline(baseline, size)
        down, across = ((2 * np.arange(cells) + 1) / cells - 1 for cells in _MASK_SIZE)
        ellipse = 1 - down[:, None] ** 2 - across**2
        masks = np.repeat(ellipse[None].astype(np.float32), len(prediction["boxes"]), axis=0)
        return {**prediction, "mask_logits": masks}

    def evaluator(self, decoding: Mapping[str, Any]) -> Evaluator:
        """Return a fresh accumulator."""
        return CocoEvaluator(
            {
                "map": ("segm", "AP"),
                "ap50": ("segm", "AP50"),
                "ap75": ("segm", "AP75"),
                "box_map": ("bbox", "AP"),
            }
        )

    def draw(
        self, image: NDArray[np.uint8], prediction: Prediction, labels: tuple[str, ...] = ()
    ) -> NDArray[np.uint8]:
        """Return the image beside a copy with boxes and masks, each object in its own colour."""
        shown = prediction["scores"] >= SHOWN_SCORE
        masks = paste_masks(
            prediction["mask_logits"][shown], prediction["boxes"][shown], image.shape[:2]
        )
        drawn = overlay_masks(image, masks, [class_color(index) for index in range(len(masks))])
        boxed = super().draw(drawn, prediction, labels)
        boxed[:, : image.shape[1]] = image
        return boxed

    def draw_label(
        self, image: NDArray[np.uint8], sample: Sample, names: LabelNames
    ) -> NDArray[np.uint8]:
        """Return the image with the labelled boxes and masks, each object in its own colour."""
        assert sample.objects is not None  # noqa: S101 - `check` has seen it
        assert sample.objects.masks is not None  # noqa: S101 - likewise
        last = np.moveaxis(sample.objects.masks, 0, -1)
        masks = np.moveaxis(resize_nearest(last, image.shape[:2]), -1, 0)
        colors = [class_color(index) for index in range(len(masks))]
        return super().draw_label(overlay_masks(image, masks, colors), sample, names)


def _draw_rows(positive: NDArray[np.intp], image: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Draw anchors among those with an object; the image, as augmented, decides the draw."""
    rng = np.random.default_rng(zlib.crc32(image.tobytes()))
    return rng.permutation(positive)[:_TRAINED_MASKS]
