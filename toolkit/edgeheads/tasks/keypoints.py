"""Keypoints: named points of one object, such as a face, or of a scene."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks.base import Array, Evaluator, Metric, Prediction, Task, part_of
from edgeheads.tasks.drawing import class_color, draw_points, side_by_side
from edgeheads.tasks.task_type import TaskType

__all__ = ["KeypointEvaluator", "KeypointTask", "average_precision", "keypoint_similarity"]

_PCK_SHARE = 0.05
_OKS_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# How far people disagree about each of COCO's 17 points of a person, as shares of its scale:
# nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles (Lin et al. 2014, and
# cocoeval.Params of pycocotools).
_COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
# Of keypoints that nobody measured this for.
_SIGMA = 0.05
# Of a point drawn full, or else as a ring.
_SURE = 0.3
# With more points than this, their names would cover the picture.
_MOST_NAMED = 12


class KeypointTask(Task):
    """Trains, decodes, scores and draws keypoints, each at most once in an image."""

    type = TaskType.KEYPOINT_DETECTION
    title = "keypoints"
    default_recipe = "keypoints-mobilenet_v2_0.35-128"
    metrics = (
        Metric("pck", "PCK@0.05", "", True, 0, 1, 0.015),
        Metric("nme", "NME", "%", False, 0, math.inf, 1.5),
        Metric("oks_ap", "OKS AP", "", True, 0, 1),
    )
    protocol = (
        "over labelled keypoints, hidden ones included; errors are divided by the scale of the "
        "object they belong to (the square root of its area), or where there is none by that of "
        "the image; PCK: the share of all keypoints within 0.05; NME: the mean of each image, "
        "then over images; OKS AP: COCO's, one instance an image, the mean over OKS 0.50:0.05:0.95,"
        f" COCO's sigmas for 17 keypoints and {_SIGMA} for any other number"
    )
    augmentations = ("flip", "color")

    def head_options(self, names: LabelNames) -> dict[str, Any]:
        """Return the number of keypoints."""
        count = len(names.keypoints)
        if not count:
            raise EdgeheadsError(
                "task 'keypoints' needs labelled keypoints, the data has none; give a folder of "
                "images and keypoints with --data"
            )
        given = self.options.get("num_keypoints", count)
        if given != count:
            raise EdgeheadsError(
                f"head.options.num_keypoints is {given!r}, but the data has {count} keypoints "
                f"({', '.join(names.keypoints)}); leave num_keypoints out of the recipe"
            )
        return {"num_keypoints": count}

    def labels(self, names: LabelNames) -> tuple[str, ...]:
        """Return the names of the keypoints."""
        return names.keypoints

    def check(self, sample: Sample) -> None:
        """Require keypoints; that none of them is labelled is no fault."""
        keypoints = sample.keypoints
        if keypoints is None:
            raise EdgeheadsError(f"{sample.name} has no keypoints, which task 'keypoints' needs")
        if not np.isfinite(keypoints).all():
            raise EdgeheadsError(
                f"{sample.name} has a keypoint at NaN or infinity, expected pixels; "
                "give one that nobody knows visibility 0"
            )

    def target(
        self, sample: Sample, size: tuple[int, int], decoding: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Return keypoints [K, 3]: x and y in fractions of the image, and the visibility."""
        return {"keypoints": _fractions(sample)}

    def loss(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """See `training.losses.keypoint_loss`, which draws the heatmaps on the way."""
        from edgeheads.training.losses.keypoints import keypoint_loss

        return keypoint_loss(targets["keypoints"], outputs["heatmaps"], outputs["offsets"])

    def edge_outputs(self, model: Any, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return heatmaps and offsets; where a heatmap is highest is no int8 operator."""
        outputs = {part: part_of(model, prefix, part) for part in ("heatmaps", "offsets")}
        return outputs, {"num_keypoints": outputs["heatmaps"].shape[-1]}

    def baseline(self, samples: Iterable[Sample], names: LabelNames) -> dict[str, Any]:
        """Return the mean position of each keypoint; the image's centre where it has none."""
        total = np.zeros((len(names.keypoints), 2))
        count = np.zeros((len(names.keypoints), 1))
        for sample in samples:
            self.check(sample)
            keypoints = _fractions(sample).astype(np.float64)
            labelled = keypoints[:, 2:] > 0
            total += keypoints[:, :2] * labelled
            count += labelled
        mean = np.where(count > 0, total / np.maximum(count, 1), 0.5)
        return {
            "kind": "mean position of each keypoint in the training set",
            "keypoints": mean.tolist(),
        }

    def decode(self, outputs: Mapping[str, Array], decoding: Mapping[str, Any]) -> Prediction:
        """Return keypoints [K, 3]: x and y in [0, 1] of the image, and a score in [0, 1].

        The cell of the highest logit, moved by its offset; the score is the sigmoid there.
        """
        heatmaps, offsets = outputs["heatmaps"][0], outputs["offsets"][0]
        height, width, count = heatmaps.shape
        cells = heatmaps.reshape(-1, count)
        peak, each = cells.argmax(axis=0), np.arange(count)
        cell = np.stack([peak % width, peak // width], axis=-1).astype(np.float32)
        shift = offsets.reshape(-1, count, 2)[peak, each]
        points = np.clip((cell + 0.5 + shift) / np.array([width, height], np.float32), 0, 1)
        # exp of a large number would overflow.
        score = 0.5 + 0.5 * np.tanh(cells[peak, each] / 2)
        return {"keypoints": np.column_stack([points, score]).astype(np.float32)}

    def predict_baseline(self, baseline: Mapping[str, Any], size: tuple[int, int]) -> Prediction:
        """Return the same points for every image, with score 1."""
        points = np.array(baseline["keypoints"], np.float32).reshape(-1, 2)
        return {"keypoints": np.column_stack([points, np.ones(len(points), np.float32)])}

    def evaluator(self, decoding: Mapping[str, Any]) -> KeypointEvaluator:
        """Return a fresh accumulator."""
        return KeypointEvaluator(decoding["num_keypoints"])

    def draw(
        self, image: NDArray[np.uint8], prediction: Prediction, labels: tuple[str, ...] = ()
    ) -> NDArray[np.uint8]:
        """Return the image beside itself with the keypoints: disks, rings where unsure."""
        points = prediction["keypoints"]
        return side_by_side(image, _drawn(image, points, labels, points[:, 2] >= _SURE))

    def draw_label(
        self, image: NDArray[np.uint8], sample: Sample, names: LabelNames
    ) -> NDArray[np.uint8]:
        """Return the image with the labelled keypoints: disks, rings where hidden."""
        points = _fractions(sample)
        return _drawn(image, points, names.keypoints, points[:, 2] == 2, points[:, 2] > 0)


class KeypointEvaluator(Evaluator):
    """PCK (Yang & Ramanan 2013), the normalized mean error, and COCO's OKS AP.

    Args:
        num_keypoints: K.
    """

    def __init__(self, num_keypoints: int) -> None:
        # [K] of each image, in shares of its scale; NaN where a keypoint is not labelled.
        self._errors: list[NDArray[np.float64]] = []
        self._scores: list[float] = []
        self._num_keypoints = num_keypoints
        self._left_out = 0
        self._by_image = 0

    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Measure one image's keypoints; one without a labelled keypoint counts as left out."""
        truth = sample.keypoints
        if truth is None:
            raise EdgeheadsError(f"{sample.name} has no keypoints to evaluate against")
        points = np.asarray(prediction["keypoints"], np.float64)
        if not np.isfinite(points).all():
            raise EdgeheadsError(
                f"the model predicts NaN or infinite keypoints on {sample.name}; "
                "train or convert it again"
            )
        if len(truth) != self._num_keypoints:
            raise EdgeheadsError(
                f"{sample.name} has {len(truth)} keypoints, the model predicts "
                f"{self._num_keypoints}; evaluate on data with the same keypoints"
            )
        labelled = truth[:, 2] > 0
        if not labelled.any():
            self._left_out += 1
            return
        height, width = sample.image.shape[:2]
        scale = sample.keypoint_scale
        if not scale:
            self._by_image += 1
            scale = math.sqrt(height * width)
        distance = np.linalg.norm(points[:, :2] * (width, height) - truth[:, :2], axis=1)
        self._errors.append(np.where(labelled, distance / scale, np.nan))
        self._scores.append(float(points[:, 2].mean()))

    def result(self) -> dict[str, Any]:
        """Return the metrics, the counts, the range of errors, and "per_keypoint": NME in %."""
        if not self._errors:
            raise EdgeheadsError(
                f"none of {self._left_out} images has a labelled keypoint; check the labels"
            )
        errors = np.stack(self._errors)
        labelled = ~np.isnan(errors)
        similarity = keypoint_similarity(errors)
        scores = np.array(self._scores)
        precisions = [average_precision(scores, similarity >= one) for one in _OKS_THRESHOLDS]
        known, count = np.where(labelled, errors, 0), labelled.sum(axis=0)
        per_keypoint = known.sum(axis=0) / np.maximum(count, 1) * 100
        return {
            "metrics": {
                "pck": float((errors[labelled] <= _PCK_SHARE).mean()),
                "nme": float((known.sum(axis=1) / labelled.sum(axis=1)).mean() * 100),
                "oks_ap": float(np.mean(precisions)),
            },
            "counts": {
                "images": len(errors),
                "images_left_out": self._left_out,
                "images_measured_by_their_own_size": self._by_image,
                "keypoints": int(labelled.sum()),
            },
            "ranges": {
                "error_percent": [
                    float(errors[labelled].min() * 100),
                    float(errors[labelled].max() * 100),
                ]
            },
            "per_keypoint": {
                "nme": [float(e) if n else None for e, n in zip(per_keypoint, count, strict=True)],
                "labelled": count.tolist(),
            },
        }


def keypoint_similarity(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return COCO's object keypoint similarity (OKS) [N], in [0, 1], of N instances.

    Args:
        errors: [N, K] in shares of each instance's scale; NaN where not labelled. Each instance
            has a labelled keypoint.
    """
    count = errors.shape[1]
    sigmas = np.array(_COCO_SIGMAS if count == len(_COCO_SIGMAS) else [_SIGMA] * count)
    similarity: NDArray[np.float64] = np.nanmean(
        np.exp(-(errors**2) / (2 * (2 * sigmas) ** 2)), axis=1
    )
    return similarity


def average_precision(scores: NDArray[np.float64], hits: NDArray[np.bool_]) -> float:
    """Return COCO's average precision where every image has one instance and one detection.

    Args:
        scores: [N] of the detections.
        hits: [N], whether each is right.
    """
    found = np.cumsum(hits[np.argsort(-scores, kind="stable")])
    precision = found / np.arange(1, len(found) + 1)
    # At each recall, the best precision that this or a greater recall has.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(found / len(found), np.linspace(0, 1, 101), side="left")
    return float(np.mean(np.append(precision, 0.0)[reached]))


def _fractions(sample: Sample) -> NDArray[np.float32]:
    """Return the labels [K, 3] with x and y in fractions of the image."""
    assert sample.keypoints is not None  # noqa: S101 - `check` has seen it
    height, width = sample.image.shape[:2]
    units: Any = np.array([width, height, 1], np.float32)
    return sample.keypoints / units


def _drawn(
    image: NDArray[np.uint8],
    points: NDArray[np.float32],
    labels: tuple[str, ...],
    filled: NDArray[np.bool_],
    shown: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    chosen = np.arange(len(points)) if shown is None else np.flatnonzero(shown)
    named = labels if len(points) <= _MOST_NAMED else ()
    return draw_points(
        image,
        points[chosen, :2],
        [named[one] if one < len(named) else "" for one in chosen],
        [class_color(int(one)) for one in chosen],
        filled[chosen].tolist(),
    )
