"""Measuring the ranges of activations: which values eight bits have to tell apart."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeheads.errors import EdgeheadsError, unknown_name
from edgeheads.export.flatgraph import FlatGraph, Probe
from edgeheads.tasks.base import Array

__all__ = [
    "CALIBRATIONS",
    "DEFAULT_CALIBRATION",
    "Images",
    "Range",
    "checked_images",
    "get_calibration",
    "measure_ranges",
    "pass_on",
]

# Gives real-valued inputs [1, H, W, 3]; the same ones at every call.
Images = Callable[[], Iterable[Array]]

DEFAULT_CALIBRATION = "mse"

# A histogram takes this many values of a tensor and image at most, evenly spread.
_SAMPLED = 1 << 13
_BINS = 2048
_STEPS = 255
# How much of a range is tried to be cut off at each end.
_CUTS = np.linspace(0.0, 0.7, 36)

# These hand values on as they are, and int8 gives their output the scale of their input: a range
# of its own for each would cost an extra operation that rescales.
_PASS_ON = {
    "RESHAPE",
    "RESIZE_NEAREST_NEIGHBOR",
    "RESIZE_BILINEAR",
    "MAX_POOL_2D",
    "AVERAGE_POOL_2D",
    "PAD",
    "TRANSPOSE",
    "SLICE",
    "STRIDED_SLICE",
    "SPLIT",
    "TILE",
    "GATHER",
    "SPACE_TO_DEPTH",
    "DEPTH_TO_SPACE",
}


@dataclass(frozen=True)
class Range:
    """The real values, from `low` to `high`, that an activation's integers stand for."""

    low: float
    high: float


class _Observer(ABC):
    """Sees one activation of every image, and says at the end what its range is."""

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf

    def see(self, values: Array) -> None:
        """Take one image's values into account."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    @abstractmethod
    def range(self) -> Range:
        """Return the range."""


class _MinMax(_Observer):
    def range(self) -> Range:
        return Range(self.low, self.high)


class _MovingAverage(_Observer):
    _MOMENTUM = 0.9

    def see(self, values: Array) -> None:
        low, high = float(values.min()), float(values.max())
        if self.low > self.high:
            self.low, self.high = low, high
        self.low += (1 - self._MOMENTUM) * (low - self.low)
        self.high += (1 - self._MOMENTUM) * (high - self.high)

    def range(self) -> Range:
        return Range(self.low, self.high)


class _Histogram(_Observer):
    """Counts values between the extremes, for which it sees the images a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = np.zeros(_BINS, np.int64)

    def count(self, values: Array) -> None:
        """Take one image's values into account, for the second time."""
        width = (self.high - self.low) / _BINS
        if width <= 0:
            return
        flat = values.ravel()
        # A step that shares no factor with the channels visits all of them; a scalar has none.
        channels = values.shape[-1] if values.ndim else 1
        step = max(1, flat.size // _SAMPLED)
        while math.gcd(step, channels) > 1:
            step += 1
        bins = ((flat[::step] - self.low) / width).astype(np.int32)
        self.counts += np.bincount(np.clip(bins, 0, _BINS - 1), minlength=_BINS)

    def edges(self) -> NDArray[np.float64]:
        """Return the borders [bins + 1] between the bins."""
        return np.linspace(self.low, self.high, _BINS + 1)


class _Percentile(_Histogram):
    """Cuts off as many values at each end as together are one in ten thousand."""

    _SHARE = 1e-4

    def range(self) -> Range:
        total = self.counts.sum()
        if not total:
            return Range(self.low, self.high)
        below = np.cumsum(self.counts) / total
        first = int(np.searchsorted(below, self._SHARE / 2))
        last = int(np.searchsorted(below, 1 - self._SHARE / 2))
        edges = self.edges()
        return Range(float(edges[first]), float(edges[min(last + 1, _BINS)]))


class _MeanSquaredError(_Histogram):
    """Cuts off what costs less in clipping than it gains in finer steps.

    The expected squared error of a value inside is a step squared, over 12; of one outside, its
    distance squared.
    """

    def range(self) -> Range:
        if not self.counts.sum():
            return Range(self.low, self.high)
        edges = self.edges()
        centres = (edges[1:] + edges[:-1]) / 2
        # Zero stays representable, and ends on its side of zero are not moved across.
        lows = np.unique(min(self.low, 0.0) * (1 - _CUTS))
        highs = np.unique(max(self.high, 0.0) * (1 - _CUTS))
        below = np.maximum(lows[:, None] - centres, 0.0) ** 2 @ self.counts
        above = np.maximum(centres - highs[:, None], 0.0) ** 2 @ self.counts
        under = (centres < lows[:, None]) @ self.counts
        over = (centres > highs[:, None]) @ self.counts
        inside = self.counts.sum() - under[:, None] - over[None, :]
        steps = (highs[None, :] - lows[:, None]) / _STEPS
        error = below[:, None] + above[None, :] + inside * steps**2 / 12
        low, high = np.unravel_index(int(error.argmin()), error.shape)
        return Range(float(lows[low]), float(highs[high]))


CALIBRATIONS: dict[str, type[_Observer]] = {
    "min-max": _MinMax,
    "percentile": _Percentile,
    "mse": _MeanSquaredError,
    "moving-average": _MovingAverage,
}


def get_calibration(name: str) -> type[_Observer]:
    """Return the observer of a method.

    Raises:
        EdgeheadsError: there is none of that name; the text lists close ones.
    """
    if name not in CALIBRATIONS:
        raise unknown_name("calibration method", name, CALIBRATIONS)
    return CALIBRATIONS[name]


def measure_ranges(
    float_model: bytes, images: Images, method: str = DEFAULT_CALIBRATION
) -> dict[int, Range]:
    """Return the range of every float activation of a float32 .tflite file.

    Memory holds one image's activations and a histogram for each, however many images there are.
    What the file returns keeps its extremes: the highest score is what a detector is for.

    Args:
        float_model: the file.
        images: calibration inputs, read once or, by the methods with a histogram, twice.
        method: a name from CALIBRATIONS: "min-max", the extremes; "percentile", all but the
            outermost 0.01 % of values; "mse", the range of least squared error;
            "moving-average", of each image's extremes (momentum 0.9, Jacob et al. 2018).

    Returns:
        {number of the tensor in the file: range}; zero is always within.

    Raises:
        EdgeheadsError: images that are missing, of another shape, not finite, or all alike.
    """
    observer = get_calibration(method)
    graph = FlatGraph(float_model)
    seen = [tensor for tensor in graph.activations() if graph.dtype(tensor) == "float32"]
    looks_twice = issubclass(observer, _Histogram)
    whole = {*graph.outputs, *graph.inputs}
    observers = {
        tensor: (_MinMax if tensor in whole and looks_twice else observer)() for tensor in seen
    }
    probe = Probe(graph, seen)
    shape = graph.shape(graph.inputs[0])
    for values in probe.run(checked_images(images(), shape)):
        for tensor, array in values.items():
            observers[tensor].see(array)
    _require_finite(graph, observers)
    if looks_twice:
        counting = {t: one for t, one in observers.items() if isinstance(one, _Histogram)}
        for values in probe.run(images()):
            for tensor, one in counting.items():
                one.count(values[tensor])
    ranges = {tensor: _with_zero(one.range()) for tensor, one in observers.items()}
    pass_on(graph, ranges)
    return ranges


def pass_on(graph: FlatGraph, ranges: dict[int, Range]) -> set[int]:
    """Give outputs of operations that keep their input's scale its range, in place.

    Returns:
        The numbers of these outputs.
    """
    passed: set[int] = set()
    for operation in graph.operations:
        source = int(operation.inputs[-1 if graph.kind(operation) == "SPLIT" else 0])
        if graph.kind(operation) in _PASS_ON and source in ranges:
            outputs = {int(t) for t in operation.outputs if int(t) in ranges}
            ranges.update((t, ranges[source]) for t in outputs)
            passed |= outputs
    return passed


def checked_images(images: Iterable[Array], shape: tuple[int, ...]) -> Iterator[Array]:
    """Yield the images as float32.

    Raises:
        EdgeheadsError: one is of another shape or not finite; or, at the end, all are alike.
    """
    low, high, count = np.inf, -np.inf, 0
    for array in images:
        if array.shape != shape or not np.isfinite(array).all():
            raise EdgeheadsError(
                f"calibration image {count} must be finite and of shape {shape}, "
                f"received shape {array.shape}"
                + ("" if array.shape != shape else " with NaN or infinite values")
            )
        low, high = min(low, float(array.min())), max(high, float(array.max()))
        count += 1
        yield array.astype(np.float32, copy=False)
    if not count:
        raise EdgeheadsError("int8 needs calibration images, received none")
    if low >= high:
        raise EdgeheadsError(
            f"the {count} calibration images are all one colour, so no range can be measured; "
            "calibrate with images like those the model will see"
        )


def _require_finite(graph: FlatGraph, observers: dict[int, _Observer]) -> None:
    for tensor, one in observers.items():
        if not (math.isfinite(one.low) and math.isfinite(one.high)):
            raise EdgeheadsError(
                f"the float model computes NaN or infinite values in {graph.name(tensor)!r}; "
                "check its weights, and the scale of its inputs"
            )


def _with_zero(measured: Range) -> Range:
    low, high = min(measured.low, 0.0), max(measured.high, 0.0)
    # An activation that is always zero has no range; any will do.
    return Range(low, high) if high > low else Range(0.0, 1.0)
