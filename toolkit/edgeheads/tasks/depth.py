"""Monocular depth: metres for every pixel of one picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.images import resize_nearest, resize_rgb
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks.base import Array, Evaluator, Metric, Prediction, Task
from edgeheads.tasks.drawing import colorize, side_by_side, with_scale
from edgeheads.tasks.maps import resize_bilinear
from edgeheads.tasks.task_type import TaskType

__all__ = ["DepthEvaluator", "DepthTask"]

_DELTA = 1.25


class DepthTask(Task):
    """Trains, decodes, scores and draws depth."""

    type = TaskType.DEPTH_ESTIMATION
    title = "monocular depth"
    default_recipe = "depth-mobilenet_v2_0.75-96"
    metrics = (
        Metric("abs_rel", "AbsRel", "", False, 0, math.inf, 0.03, drop_is_relative=True),
        Metric("sq_rel", "SqRel", "m", False, 0, math.inf),
        Metric("rmse", "RMSE", "m", False, 0, math.inf),
        Metric("rmse_log", "RMSElog", "", False, 0, math.inf),
        Metric("delta1", "δ1", "", True, 0, 1, 0.01),
        Metric("delta2", "δ2", "", True, 0, 1),
        Metric("delta3", "δ3", "", True, 0, 1),
    )
    protocol = (
        "per image over pixels with a reading between min_depth and max_depth, at the label's "
        "resolution (prediction resized bilinearly), then the mean over images; "
        "no median scaling, natural logarithms"
    )
    # Scaling a picture would change what is metric in it, unless the intrinsics changed too.
    augmentations = ("flip", "color")

    def check(self, sample: Sample) -> None:
        """Require a depth map."""
        if sample.depth is None:
            raise EdgeheadsError(f"{sample.name} has no depth map, which task 'depth' needs")

    def target(
        self, sample: Sample, size: tuple[int, int], decoding: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Return depth [H, W, 1] metres, 0 where there is no reading."""
        assert sample.depth is not None  # noqa: S101 - `check` has seen it
        return {"depth": resize_nearest(sample.depth, size)[..., None]}

    def loss(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """See `training.losses.depth_loss`."""
        from edgeheads.training.losses.depth import depth_loss

        return depth_loss(targets["depth"], outputs["depth"], outputs.get("confidence"))

    def edge_outputs(self, model: Any, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the depth code and the confidence, both in [0, 1], where the graph has them.

        A graph that was not built by `build_model` gives its own outputs, in metres.
        """
        layers = {layer.name: layer for layer in model.layers}
        if f"{prefix}_code" in layers and f"{prefix}_confidence_code" in layers:
            outputs = {
                "depth_code": layers[f"{prefix}_code"].output,
                "confidence": layers[f"{prefix}_confidence_code"].output,
            }
            return outputs, _code_range(layers, prefix)
        own = model.output if isinstance(model.output, dict) else {"depth": model.output}
        shape = tuple(getattr(own.get("depth"), "shape", ()))
        if len(shape) != 4 or shape[-1] != 1:
            raise EdgeheadsError(
                "a depth model must return a map [B, H, W, 1] in metres, alone or as 'depth' of a "
                f"dictionary, received {_shapes(own)}"
            )
        return dict(own), {"encoding": "metres"}

    def baseline(self, samples: Iterable[Sample], names: LabelNames) -> dict[str, Any]:
        """Return the median depth of all readings: the best constant in absolute error."""
        # 4096 evenly spaced readings an image are plenty for a median, and bound the memory.
        readings = []
        for sample in samples:
            self.check(sample)
            known = sample.depth[sample.depth > 0]  # type: ignore[index,operator]
            readings.append(known[:: max(1, known.size // 4096)])
        return {
            "kind": "median depth of the training set",
            "depth": float(np.median(np.concatenate(readings))),
        }

    def decode(self, outputs: Mapping[str, Array], decoding: Mapping[str, Any]) -> Prediction:
        """Return depth [H, W] in metres and, where the file has it, confidence [H, W] in [0, 1]."""
        if decoding["encoding"] == "metres":
            prediction = {"depth": outputs["depth"][0, ..., 0]}
        else:
            code = np.clip(outputs["depth_code"][0, ..., 0], 0, 1)
            low, high = decoding["min_depth"], decoding["max_depth"]
            depth = (
                low * (high / low) ** code
                if decoding["encoding"] == "log"
                else low + (high - low) * code
            )
            prediction = {"depth": depth.astype(np.float32)}
        if "confidence" in outputs:
            prediction["confidence"] = outputs["confidence"][0, ..., 0]
        return prediction

    def predict_baseline(self, baseline: Mapping[str, Any], size: tuple[int, int]) -> Prediction:
        """Return the same depth everywhere."""
        return {"depth": np.full(size, baseline["depth"], np.float32)}

    def evaluator(self, decoding: Mapping[str, Any]) -> DepthEvaluator:
        """Return a fresh accumulator; readings outside the model's range do not count."""
        return DepthEvaluator(decoding.get("min_depth", 0.0), decoding.get("max_depth", math.inf))

    def draw(
        self, image: NDArray[np.uint8], prediction: Prediction, labels: tuple[str, ...] = ()
    ) -> NDArray[np.uint8]:
        """Return the image beside its depth map: near is bright, with a scale in metres."""
        colored, low, high = _colored(prediction["depth"])
        panel = with_scale(resize_rgb(colored, image.shape[:2]), f"{low:.2f} m", f"{high:.2f} m")
        return side_by_side(image, panel)

    def draw_label(
        self, image: NDArray[np.uint8], sample: Sample, names: LabelNames
    ) -> NDArray[np.uint8]:
        """Return the depth map, black where there is no reading."""
        assert sample.depth is not None  # noqa: S101 - `check` has seen it
        known = sample.depth > 0
        colored, _, _ = _colored(np.where(known, sample.depth, np.median(sample.depth[known])))
        return resize_nearest(colored * known[..., None], image.shape[:2])


class DepthEvaluator(Evaluator):
    """The errors and the three delta accuracies of Eigen et al. 2014, averaged over images.

    Args:
        min_depth: metres; labels below are left out.
        max_depth: metres; labels above are left out.
    """

    def __init__(self, min_depth: float = 0.0, max_depth: float = math.inf) -> None:
        self._range = (min_depth, max_depth)
        self._per_image: list[tuple[float, ...]] = []
        self._pixels = 0
        self._left_out = 0
        self._truth = [math.inf, -math.inf]
        self._predicted = [math.inf, -math.inf]

    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Score one image; one without a reading in range counts as left out."""
        truth = sample.depth
        if truth is None:
            raise EdgeheadsError(f"{sample.name} has no depth map to evaluate against")
        depth = resize_bilinear(prediction["depth"], truth.shape)
        valid = (truth > 0) & (truth >= self._range[0]) & (truth <= self._range[1])
        if not valid.any():
            self._left_out += 1
            return
        y, p = truth[valid].astype(np.float64), depth[valid].astype(np.float64)
        if not np.isfinite(p).all():
            raise EdgeheadsError(
                f"the model predicts NaN or infinite depth on {sample.name}; "
                "train or convert it again"
            )
        # A depth of 0 is wrong by every ratio, but has none.
        positive = np.maximum(p, 1e-9)
        ratio = np.maximum(p / y, y / positive)
        self._per_image.append(
            (
                float(np.mean(np.abs(p - y) / y)),
                float(np.mean((p - y) ** 2 / y)),
                float(np.sqrt(np.mean((p - y) ** 2))),
                float(np.sqrt(np.mean(np.log(positive / y) ** 2))),
                *(float(np.mean(ratio < _DELTA**power)) for power in (1, 2, 3)),
            )
        )
        self._pixels += int(valid.sum())
        _widen(self._truth, y)
        _widen(self._predicted, p)

    def result(self) -> dict[str, Any]:
        """Return the means over images, the counts, and the ranges of label and prediction."""
        if not self._per_image:
            raise EdgeheadsError(
                f"none of {self._left_out} images has a depth reading between {self._range[0]} and "
                f"{self._range[1]} metres; check the depth unit"
            )
        means = np.mean(np.asarray(self._per_image), axis=0)
        names = [metric.name for metric in DepthTask.metrics]
        return {
            "metrics": {name: float(value) for name, value in zip(names, means, strict=True)},
            "counts": {
                "images": len(self._per_image),
                "images_left_out": self._left_out,
                "pixels": self._pixels,
            },
            "ranges": {"label_m": self._truth, "prediction_m": self._predicted},
        }


def _code_range(layers: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Read the depth range from the layer that turns the code into metres."""
    if f"{prefix}_log_metres" in layers:
        rescaling = layers[f"{prefix}_log_metres"]
        low = math.exp(rescaling.offset)
        return {"encoding": "log", "min_depth": low, "max_depth": low * math.exp(rescaling.scale)}
    rescaling = layers[f"{prefix}_metres"]
    return {
        "encoding": "linear",
        "min_depth": float(rescaling.offset),
        "max_depth": float(rescaling.offset + rescaling.scale),
    }


def _colored(depth: Array) -> tuple[NDArray[np.uint8], float, float]:
    """Return the colours of a map in metres, and the range they stand for.

    Equal colour steps for equal ratios of depth, as people see distance.
    """
    low, high = (float(value) for value in np.percentile(depth, (1, 99)))
    high = max(high, low * 1.01)
    return colorize(1 - np.log(np.clip(depth, low, high) / low) / math.log(high / low)), low, high


def _shapes(outputs: Mapping[str, Any]) -> dict[str, tuple[int | None, ...]]:
    return {name: tuple(getattr(tensor, "shape", ())) for name, tensor in outputs.items()}


def _widen(limits: list[float], values: Array) -> None:
    limits[0] = min(limits[0], float(values.min()))
    limits[1] = max(limits[1], float(values.max()))
