"""Surface normals: which way the surface at every pixel faces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.images import resize_nearest, resize_rgb
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks.base import Array, Evaluator, Metric, Prediction, Task
from edgeheads.tasks.drawing import side_by_side
from edgeheads.tasks.maps import resize_bilinear
from edgeheads.tasks.task_type import TaskType

__all__ = ["NormalsEvaluator", "NormalsTask"]

# Cells a side of the grid on which the baseline knows what is usual.
_GRID = 8
_SHARES = {"within_11": 11.25, "within_22": 22.5, "within_30": 30.0}
# Of the histogram that the median is read from, in degrees.
_BIN = 0.05
_BINS = round(180 / _BIN)
# How far from 1 the length of a label may be.
_LENGTH_ERROR = 0.05
_TO_CAMERA = (0.0, 0.0, -1.0)


class NormalsTask(Task):
    """Trains, decodes, scores and draws surface normals."""

    type = TaskType.SURFACE_NORMALS
    title = "surface normals"
    default_recipe = "normals-mobilenet_v2_0.35-128"
    metrics = (
        Metric("mean_angle", "mean angle", "°", False, 0, 180, 0.03, drop_is_relative=True),
        Metric("median_angle", "median angle", "°", False, 0, 180),
        Metric("within_11", "<11.25°", "", True, 0, 1),
        Metric("within_22", "<22.5°", "", True, 0, 1),
        Metric("within_30", "<30°", "", True, 0, 1),
    )
    protocol = (
        "angle between prediction and label over the pixels of all images that have a normal "
        "(Eigen & Fergus 2015), at the label's resolution (prediction resized bilinearly, then "
        f"made unit); the median to {_BIN} degrees"
    )
    # A crop or a zoom shows the same surface on another line of sight, which the network would
    # have to know; turning is true only where pixels are square.
    augmentations = ("flip", "color")

    # Before the Bundle

    def check(self, sample: Sample) -> None:
        """Require unit normals at some of the pixels."""
        if sample.normals is None:
            raise EdgeheadsError(f"{sample.name} has no normals, which task 'normals' needs")
        if sample.normals.shape != sample.image.shape:
            raise EdgeheadsError(
                f"{sample.name}: the normals must be [H, W, 3] of the image's size "
                f"{sample.image.shape}, received {sample.normals.shape}"
            )
        lengths = np.linalg.norm(sample.normals[_defined(sample.normals)], axis=-1)
        if not lengths.size:
            raise EdgeheadsError(f"{sample.name} has a normal at none of its pixels")
        # Written so that NaN is wrong too.
        wrong = ~(np.abs(lengths - 1) <= _LENGTH_ERROR)
        if wrong.any():
            raise EdgeheadsError(
                f"{sample.name}: normals must be of length 1, or 0 where undefined, received one "
                f"of length {lengths[wrong][0]:.3f}"
            )

    def target(
        self, sample: Sample, size: tuple[int, int], decoding: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Return normals [H, W, 3], all zero where undefined."""
        assert sample.normals is not None  # noqa: S101 - `check` has seen it
        return {"normals": resize_nearest(sample.normals, size)}

    def loss(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """See `training.losses.normals_loss`."""
        from edgeheads.training.losses.normals import normals_loss

        return normals_loss(targets["normals"], outputs["normals"])

    def edge_outputs(self, model: Any, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the vectors before they are made unit: the division by a length is not for int8.

        A graph that was not built by `build_model` gives its single output.
        """
        layers = {layer.name: layer for layer in model.layers}
        decoding = {"frame": "x right, y down, z forward"}
        if f"{prefix}_vectors" in layers:
            return {"vectors": layers[f"{prefix}_vectors"].output}, decoding
        own = list(model.output.values()) if isinstance(model.output, dict) else [model.output]
        shapes = [tuple(getattr(tensor, "shape", ())) for tensor in own]
        if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] != 3:
            raise EdgeheadsError(
                "a model of surface normals must return one map of vectors [B, H, W, 3], "
                f"received {shapes}"
            )
        return {"vectors": own[0]}, decoding

    def baseline(self, samples: Iterable[Sample], names: LabelNames) -> dict[str, Any]:
        """Return the mean normal of each cell of a grid, since floors are below and walls beside.

        On the training set no constant is better: it would be a grid of equal cells.
        """
        sums = np.zeros((_GRID, _GRID, 3))
        for sample in samples:
            self.check(sample)
            assert sample.normals is not None  # noqa: S101 - `check` has seen it
            rows, columns = (np.arange(side) * _GRID // side for side in sample.image.shape[:2])
            cells = rows[:, None], columns[None, :]
            np.add.at(sums, cells, sample.normals)
        # A cell that is never labelled has the mean of all.
        sums[~_defined(sums)] = sums.sum(axis=(0, 1))
        return {"kind": f"mean normal in {_GRID}x{_GRID} cells", "normals": _unit(sums).tolist()}

    # After the Bundle

    def decode(self, outputs: Mapping[str, Array], decoding: Mapping[str, Any]) -> Prediction:
        """Return unit normals [H, W, 3] in the camera frame; a zero vector faces the camera."""
        return {"normals": _unit(outputs["vectors"][0])}

    def predict_baseline(self, baseline: Mapping[str, Any], size: tuple[int, int]) -> Prediction:
        """Return the mean normal of the cell that each pixel is in."""
        return {"normals": resize_nearest(np.asarray(baseline["normals"], np.float32), size)}

    def evaluator(self, decoding: Mapping[str, Any]) -> NormalsEvaluator:
        """Return a fresh accumulator."""
        return NormalsEvaluator()

    def draw(
        self, image: NDArray[np.uint8], prediction: Prediction, labels: tuple[str, ...] = ()
    ) -> NDArray[np.uint8]:
        """Return the image beside its normals.

        Red is right, green is up, blue is towards the camera: the coding of normal maps in
        computer graphics, where what faces the camera is lilac.
        """
        return side_by_side(image, resize_rgb(_colored(prediction["normals"]), image.shape[:2]))

    def draw_label(
        self, image: NDArray[np.uint8], sample: Sample, names: LabelNames
    ) -> NDArray[np.uint8]:
        """Return the normals in the colours of `draw`, black where undefined."""
        assert sample.normals is not None  # noqa: S101 - `check` has seen it
        colored = _colored(sample.normals) * _defined(sample.normals)[..., None]
        return resize_nearest(colored, image.shape[:2])


class NormalsEvaluator(Evaluator):
    """The angular errors of Eigen & Fergus 2015, over the pixels of all images together.

    The median comes from a histogram, so that no number of images needs more memory than one.
    """

    def __init__(self) -> None:
        self._histogram = np.zeros(_BINS, np.int64)
        self._total = 0.0
        self._within = dict.fromkeys(_SHARES, 0)
        self._images = self._left_out = 0
        self._range = [180.0, 0.0]

    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Compare normals [h, w, 3] of any size and length with the sample's [H, W, 3]."""
        assert sample.normals is not None  # noqa: S101 - `check` has seen it
        defined = _defined(sample.normals)
        if not defined.any():
            self._left_out += 1
            return
        resized = resize_bilinear(prediction["normals"], sample.normals.shape[:2])
        if not np.isfinite(resized).all():
            raise EdgeheadsError(
                f"the model predicts NaN or infinite normals on {sample.name}; "
                "train or convert it again"
            )
        # In double precision, or the arc cosine near 1 would add hundredths of a degree.
        truth = _unit(sample.normals[defined], np.float64)
        cosines = (_unit(resized[defined], np.float64) * truth).sum(axis=-1)
        angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
        self._images += 1
        self._total += float(angles.sum())
        places = np.minimum((angles / _BIN).astype(np.intp), _BINS - 1)
        self._histogram += np.bincount(places, minlength=_BINS)
        for name, limit in _SHARES.items():
            self._within[name] += int((angles < limit).sum())
        self._range = [
            min(self._range[0], float(angles.min())),
            max(self._range[1], float(angles.max())),
        ]

    def result(self) -> dict[str, Any]:
        """Return the means over pixels, the counts, and the range of the angles."""
        pixels = int(self._histogram.sum())
        if not pixels:
            raise EdgeheadsError(
                f"none of {self._left_out} images has a normal; give data with normals"
            )
        shares = {name: count / pixels for name, count in self._within.items()}
        return {
            "metrics": {
                "mean_angle": self._total / pixels,
                "median_angle": self._median(),
                **shares,
            },
            "counts": {
                "images": self._images,
                "images_left_out": self._left_out,
                "pixels": pixels,
            },
            "ranges": {"angle_deg": self._range},
        }

    def _median(self) -> float:
        """Return the middle of the bin that the middle pixel is in."""
        middle = (int(self._histogram.sum()) + 1) // 2
        place = int(np.searchsorted(np.cumsum(self._histogram), middle))
        return (place + 0.5) * _BIN


def _defined(normals: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where vectors [..., 3] are not all zero."""
    defined: NDArray[np.bool_] = np.any(normals != 0, axis=-1)
    return defined


def _unit(vectors: Array, dtype: type[np.floating[Any]] = np.float32) -> Array:
    """Return vectors [..., 3] at length 1; a zero vector becomes the one to the camera."""
    vectors = np.where(_defined(vectors)[..., None], vectors, _TO_CAMERA).astype(dtype)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _colored(normals: Array) -> NDArray[np.uint8]:
    codes = (normals * np.array([1, -1, -1]) + 1) / 2
    return (np.clip(codes, 0, 1) * 255 + 0.5).astype(np.uint8)
