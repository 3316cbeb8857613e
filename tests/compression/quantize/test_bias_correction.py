"""Biases that take out what rounding adds to the mean of a channel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.quantize.bias_correction import correct_biases  # noqa: E402
from edgeheads.compression.quantize.calibration import measure_ranges  # noqa: E402
from edgeheads.compression.quantize.quantizer import quantize_float_model  # noqa: E402
from edgeheads.compression.quantize.schemes import get_scheme  # noqa: E402
from edgeheads.compression.sensitivity.errors import output_sqnr  # noqa: E402
from edgeheads.export.flatgraph import FlatGraph, Probe  # noqa: E402
from edgeheads.export.tflite import convert_to_float_tflite  # noqa: E402


def _images() -> Iterator[np.ndarray]:
    # Positive: an error of a weight then has a mean, as behind a ReLU.
    rng = np.random.default_rng(0)
    for _ in range(8):
        yield rng.random((1, 16, 16, 3), np.float32)


@pytest.fixture(scope="module")
def hostile() -> bytes:
    """Depthwise kernels that differ a hundredfold, which one scale for all rounds coarsely."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(16, 1, activation="relu", name="first")(image)
    middle = keras.layers.DepthwiseConv2D(3, padding="same", name="middle")
    x = keras.layers.ReLU(6.0)(middle(x))
    out = keras.layers.Conv2D(4, 1, name="last")(x)
    kernel, bias = middle.get_weights()
    kernel *= np.geomspace(0.01, 1, 16)[:, None]
    middle.set_weights([kernel, bias])
    return convert_to_float_tflite(image, {"out": out})


@pytest.fixture(scope="module")
def plain(hostile: bytes) -> bytes:
    """Quantized per tensor, without correction."""
    ranges = measure_ranges(hostile, _images)
    return quantize_float_model(hostile, ranges, get_scheme("int8"), per_channel=False)


def _mean_shift(float_model: bytes, quantized: bytes) -> float:
    """Return the mean over channels of the shift of a channel's mean, at the output."""
    means = []
    for content in (float_model, quantized):
        graph = FlatGraph(content)
        [output] = graph.outputs
        values = [one[output] for one in Probe(graph, [output]).run(_images())]
        means.append(graph.dequantize(output, np.concatenate(values)).mean(axis=(0, 1, 2)))
    return float(np.abs(means[0] - means[1]).mean())


def test_the_shift_of_means_goes_away(hostile: bytes, plain: bytes) -> None:
    corrected = correct_biases(hostile, plain, _images)
    before, after = _mean_shift(hostile, plain), _mean_shift(hostile, corrected)
    [output] = FlatGraph(plain).outputs
    assert after < before / 3
    # What is left is less than half a step of the output.
    assert after < FlatGraph(plain).scales(output)[0] / 2
    assert output_sqnr(hostile, corrected, _images) > output_sqnr(hostile, plain, _images) + 1


def test_only_biases_change(hostile: bytes, plain: bytes) -> None:
    """The file keeps its graph, its weights and its scales, and its size but for shared biases."""
    before, after = FlatGraph(plain), FlatGraph(correct_biases(hostile, plain, _images))
    assert 0 <= len(after.to_bytes()) - len(before.to_bytes()) < 200
    changed = set()
    for old, new in zip(before.operations, after.operations, strict=True):
        for tensor in [int(one) for one in old.inputs[1:]]:
            np.testing.assert_array_equal(before.scales(tensor), after.scales(tensor))
            if not np.array_equal(before.constant(tensor), after.constant(tensor)):
                changed.add(before.dtype(tensor))
        np.testing.assert_array_equal(old.inputs, new.inputs)
    assert changed == {"int32"}


def test_a_file_without_integer_biases_is_returned_as_it_is(hostile: bytes) -> None:
    assert correct_biases(hostile, hostile, _images) is hostile


def test_no_images_no_correction(hostile: bytes, plain: bytes) -> None:
    assert correct_biases(hostile, plain, lambda: []) is plain
