"""Ranges against numbers worked by hand, and images that measure nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.quantize.calibration import (  # noqa: E402
    CALIBRATIONS,
    Range,
    checked_images,
    get_calibration,
    measure_ranges,
)
from edgeheads.errors import EdgeheadsError  # noqa: E402
from edgeheads.export.flatgraph import FlatGraph  # noqa: E402
from edgeheads.export.tflite import convert_to_float_tflite  # noqa: E402

_SHAPE = (1, 4, 4, 3)


def _observed(method: str, images: Iterable[list[float]]) -> Range:
    observer = get_calibration(method)()
    arrays = [np.array(one, np.float32)[:, None] for one in images]
    for array in arrays:
        observer.see(array)
    if hasattr(observer, "count"):
        for array in arrays:
            observer.count(array)
    return observer.range()


def test_min_max_is_the_extremes_of_all_images() -> None:
    assert _observed("min-max", [[1, -2], [3, 0]]) == Range(-2, 3)


def test_moving_average_starts_at_the_first_and_moves_a_tenth() -> None:
    """-1 + 0.1 (-2 + 1) = -1.1, then -1.1 + 0.1 (0 + 1.1) = -0.99; likewise above."""
    found = _observed("moving-average", [[-1, 1], [-2, 3], [0, 2.2]])
    assert (found.low, found.high) == pytest.approx((-0.99, 1.2 + 0.1))


@pytest.mark.parametrize(("outliers", "high"), [(1, 1.0), (3, 2048.0)])
def test_percentile_cuts_one_in_twenty_thousand_at_each_end(outliers: int, high: float) -> None:
    """Bins are 1 wide. Of 40000 values one may go at the upper end, three are too many."""
    image = [0.0, *[0.5] * 7999]
    last = [*image[outliers:], *[2048.0] * outliers]
    assert _observed("percentile", [image] * 4 + [last]) == Range(0.0, high)


@pytest.mark.parametrize(("ones", "high"), [(100, 10.0), (780_300, 5.0)])
def test_mse_weighs_clipping_against_steps(ones: int, high: float) -> None:
    """(10 - h)^2 + n (h / 255)^2 / 12 is least at h = 10 / (1 + n / 780300)."""
    observer = get_calibration("mse")()
    observer.see(np.array([[0.0], [10.0]]))
    observer.counts[204] = ones
    observer.counts[-1] = 1
    assert observer.range() == Range(0.0, pytest.approx(high))


def test_mse_is_the_best_range_that_a_search_finds() -> None:
    """Half a million values with exponential tails, whose extremes are far out."""
    values = np.random.default_rng(0).laplace(size=(64, 8192))

    def error(found: Range) -> float:
        step = (found.high - found.low) / 255
        rounded = np.round(values.clip(found.low, found.high) / step) * step
        return float(np.square(values - rounded).mean())

    ours, extremes = (
        error(_observed(name, [list(one) for one in values])) for name in ("mse", "min-max")
    )
    assert ours < 0.75 * extremes
    assert ours < 1.02 * min(error(Range(-end, end)) for end in np.linspace(6, 13, 15))


def test_a_step_that_would_see_one_channel_only_is_avoided() -> None:
    """65536 values of 8 channels are sampled; the last channel alone is large."""
    values = np.zeros((8192, 8), np.float32)
    values[:, 7] = 1.0
    observer = get_calibration("percentile")()
    observer.see(values)
    observer.count(values)
    assert observer.counts[-1] / observer.counts.sum() == pytest.approx(1 / 8, rel=0.01)
    assert observer.range() == Range(0.0, 1.0)


def _model(scale: float = 2.0, offset: float = -1.0) -> bytes:
    """Image -> scale * image + offset -> its largest values -> half of them."""
    image = keras.Input(_SHAPE[1:])
    first = keras.layers.Conv2D(3, 1)
    pooled = keras.layers.MaxPooling2D(2)(first(image))
    second = keras.layers.Conv2D(3, 1)
    out = second(pooled)
    first.set_weights([scale * np.eye(3)[None, None], np.full(3, offset)])
    second.set_weights([0.5 * np.eye(3)[None, None], np.zeros(3)])
    return convert_to_float_tflite(image, {"out": out})


@pytest.fixture(scope="module")
def model() -> bytes:
    return _model()


def _ramp(low: float, high: float, shape: tuple[int, ...] = _SHAPE) -> np.ndarray:
    return np.linspace(low, high, math.prod(shape), dtype=np.float32).reshape(shape)


def _by_kind(model: bytes, ranges: dict[int, Range]) -> dict[str, list[Range]]:
    graph = FlatGraph(model)
    found = {"input": [ranges[graph.inputs[0]]]}
    for one in graph.operations:
        found.setdefault(graph.kind(one), []).append(ranges[int(one.outputs[0])])
    return found


@pytest.mark.parametrize("method", CALIBRATIONS)
def test_ranges_of_a_graph(method: str, model: bytes) -> None:
    """The pool shares its input's range, whatever it lets through; the last is the output's own."""
    ranges = _by_kind(model, measure_ranges(model, lambda: [_ramp(-0.5, 1.0)] * 3, method))
    assert ranges["input"] == [Range(-0.5, 1.0)]
    inner, output = ranges["CONV_2D"]
    assert ranges["MAX_POOL_2D"] == [inner]
    # 2 * -0.5 - 1 to 2 * 1 - 1; few and evenly spread values leave nothing to cut off.
    assert (inner.low, inner.high) == pytest.approx((-2.0, 1.0), abs=0.01)
    # The least that the pool of 2 x 2 lets through is the image's value at row 1, column 1.
    least = (2 * _ramp(-0.5, 1.0)[0, 1, 1, 0] - 1) / 2
    assert (output.low, output.high) == pytest.approx((least, 0.5), abs=1e-5)


def test_zero_is_always_within(model: bytes) -> None:
    found = _by_kind(model, measure_ranges(model, lambda: [_ramp(0.75, 1.0)], "min-max"))
    assert found["input"] == [Range(0.0, 1.0)]
    assert found["CONV_2D"][0] == Range(0.0, 1.0)


def test_an_output_that_is_always_zero_gets_some_range() -> None:
    model = _model(0.0, 0.0)
    found = _by_kind(model, measure_ranges(model, lambda: [_ramp(0, 1)]))
    assert found["CONV_2D"][-1] == Range(0.0, 1.0)


def _with(value: float) -> np.ndarray:
    image = _ramp(0, 1)
    image[0, 1, 2, 0] = value
    return image


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([_ramp(0, 1), _with(math.nan)], "image 1 must be finite .* with NaN or infinite values"),
        ([_with(math.inf)], "image 0 must be finite .* with NaN or infinite values"),
        ([np.full(_SHAPE, 0.5)] * 3, "the 3 calibration images are all one colour"),
        ([np.zeros((1, 2, 2, 3))], r"of shape \(1, 4, 4, 3\), received shape \(1, 2, 2, 3\)$"),
        ([], "needs calibration images, received none"),
    ],
)
def test_images_that_measure_nothing(images: list[np.ndarray], words: str, model: bytes) -> None:
    with pytest.raises(EdgeheadsError, match=words):
        measure_ranges(model, lambda: images)


def test_images_become_float32_one_by_one() -> None:
    """Nothing is read ahead, so that memory does not grow with their number."""
    read: list[int] = []

    def images() -> Iterator[np.ndarray]:
        for index in range(3):
            read.append(index)
            yield _ramp(0, 1).astype(np.float64)

    stream = checked_images(images(), _SHAPE)
    assert next(stream).dtype == np.float32
    assert read == [0]


def test_a_model_that_overflows_is_named() -> None:
    with pytest.raises(EdgeheadsError, match=r"the float model computes NaN or infinite values in"):
        measure_ranges(_model(3e38), lambda: [_ramp(0, 10)])


def test_unknown_method(model: bytes) -> None:
    with pytest.raises(
        EdgeheadsError, match="unknown calibration method 'minmax'; did you mean min"
    ):
        measure_ranges(model, lambda: [_ramp(0, 1)], "minmax")
