"""From a float file and ranges to integers: scales, layers that stay float, refusals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.quantize.calibration import Range, measure_ranges  # noqa: E402
from edgeheads.compression.quantize.quantizer import (  # noqa: E402
    quantize_float_model,
    quantize_with_images,
    reason,
)
from edgeheads.compression.quantize.schemes import get_scheme  # noqa: E402
from edgeheads.compression.sensitivity.errors import output_sqnr  # noqa: E402
from edgeheads.compression.sensitivity.layers import keep_float_for  # noqa: E402
from edgeheads.errors import EdgeheadsError, RuntimeFailureError  # noqa: E402
from edgeheads.export.flatgraph import FlatGraph  # noqa: E402
from edgeheads.export.tflite import convert_to_float_tflite, convert_to_tflite  # noqa: E402

_LAYERS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


def _images() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(8):
        yield rng.uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def graph() -> tuple[object, dict[str, object]]:
    """A convolution and a dense layer whose rows differ five hundredfold."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    first = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="first")
    dense = keras.layers.Dense(8, name="dense")
    maps = first(image)
    out = dense(keras.layers.Flatten()(keras.layers.MaxPooling2D(8)(maps)))
    for layer, axis in ((first, 3), (dense, 1)):
        kernel, bias = layer.get_weights()
        shape = [1] * kernel.ndim
        shape[axis] = 8
        layer.set_weights([kernel * np.geomspace(1, 500, 8).reshape(shape), bias])
    return image, {"small": maps[..., :1], "vector": out}


@pytest.fixture(scope="module")
def float_model(graph: tuple[object, dict[str, object]]) -> bytes:
    return convert_to_float_tflite(*graph)


def _scales(content: bytes) -> dict[str, int]:
    """Return {kind of layer: number of scales of its weights}."""
    graph = FlatGraph(content)
    return {
        graph.kind(one): graph.scales(int(one.inputs[1])).size
        for one in graph.operations
        if graph.kind(one) in _LAYERS
    }


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_a_scale_for_each_channel_or_one_for_all(scheme: str, float_model: bytes) -> None:
    fine = quantize_with_images(float_model, get_scheme(scheme), _images)
    coarse = quantize_with_images(float_model, get_scheme(scheme), _images, per_channel=False)
    assert _scales(fine) == {"CONV_2D": 8, "FULLY_CONNECTED": 8}
    assert _scales(coarse) == {"CONV_2D": 1, "FULLY_CONNECTED": 1}
    assert len(coarse) < len(fine)


def test_ranges_become_scales_to_the_digit(float_model: bytes) -> None:
    """255 steps from -1 to 1.55 are 0.01 each, and -1 is stored as -128: zero is -28."""
    ranges = measure_ranges(float_model, _images)
    graph = FlatGraph(float_model)
    [image] = graph.inputs
    done = FlatGraph(
        quantize_float_model(float_model, {**ranges, image: Range(-1.0, 1.55)}, get_scheme("int8"))
    )
    assert done.scales(done.inputs[0]) == pytest.approx(0.01)
    real = np.array([-1.0, 0.0, 1.55, 9.0], np.float32)
    assert done.quantize(done.inputs[0], real).tolist() == [-128, -28, 127, 127]


def test_layers_that_stay_float(float_model: bytes) -> None:
    names = keep_float_for(float_model, [_layer(float_model, "FULLY_CONNECTED")])
    done = FlatGraph(
        quantize_with_images(float_model, get_scheme("int8"), _images, keep_float=names)
    )
    weights = {
        done.kind(one): done.dtype(int(one.inputs[1]))
        for one in done.operations
        if done.kind(one) in _LAYERS
    }
    assert weights == {"CONV_2D": "int8", "FULLY_CONNECTED": "float32"}
    assert {done.dtype(tensor) for tensor in (*done.inputs, *done.outputs)} == {"int8"}


def _layer(content: bytes, kind: str) -> str:
    graph = FlatGraph(content)
    [found] = [one for one in graph.operations if graph.kind(one) == kind]
    return graph.name(int(found.outputs[0]))


def test_int16_activations_lose_less(float_model: bytes) -> None:
    ratios = [
        output_sqnr(
            float_model, quantize_with_images(float_model, get_scheme(name), _images), _images
        )
        for name in ("int8", "int16x8")
    ]
    assert ratios[1] > ratios[0] + 3


def test_the_same_images_give_the_same_bytes(float_model: bytes) -> None:
    once, again = (quantize_with_images(float_model, get_scheme("int8"), _images) for _ in range(2))
    assert once == again


@pytest.mark.parametrize(
    ("precision", "options", "words"),
    [
        ("int8", {"keep_float": ["no_such"]}, r"must name tensors .* received \['no_such'\]"),
        ("int16x8", {"keep_float": ["x"]}, "for int8 activations, received scheme 'int16x8'"),
        ("dynamic", {"keep_float": ["x"]}, "for int8 activations, received precision 'dynamic'"),
        ("int8", {"calibration": "mean"}, "unknown calibration method 'mean'"),
        ("int4", {}, "unknown quantization scheme 'int4'; did you mean int8"),
    ],
)
def test_refusals(
    precision: str,
    options: dict[str, object],
    words: str,
    graph: tuple[object, dict[str, object]],
) -> None:
    with pytest.raises(EdgeheadsError, match=words):
        convert_to_tflite(*graph, precision, _images, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_bad_images_are_told_in_our_words(
    precision: str, graph: tuple[object, dict[str, object]]
) -> None:
    """The converter's calibrator replaces errors by its own; ours must come through."""
    nan = np.full((1, 16, 16, 3), np.nan, np.float32)
    with pytest.raises(EdgeheadsError, match="calibration image 0 must be finite"):
        convert_to_tflite(*graph, precision, lambda: [nan])
    grey = np.full((1, 16, 16, 3), 0.5, np.float32)
    with pytest.raises(EdgeheadsError, match="the 2 calibration images are all one colour"):
        convert_to_tflite(*graph, precision, lambda: [grey, grey])
    with pytest.raises(EdgeheadsError, match="needs calibration images, received none"):
        convert_to_tflite(*graph, precision, lambda: [])
    with pytest.raises(EdgeheadsError, match=f"{precision} needs calibration images"):
        convert_to_tflite(*graph, precision)


def test_int16_with_one_scale_is_refused_where_the_quantizer_cannot() -> None:
    image = keras.Input((8, 8, 3))
    graph = image, {"out": keras.layers.DepthwiseConv2D(3)(image)}
    with pytest.raises(EdgeheadsError, match=r"depthwise convolutions .* choose int8, or per-chan"):
        convert_to_tflite(*graph, "int16x8", _images, per_channel=False)


def test_the_reason_of_a_refusal_is_its_first_error() -> None:
    assert reason(ValueError("a\nx: error: bad  op\nerror: 2"), "") == "x: error: bad op"
    assert reason(ValueError(""), "loc: error: from the log") == "loc: error: from the log"
    assert reason(ValueError(""), "") == "ValueError"


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_a_kernel_that_is_computed_is_refused(scheme: str) -> None:
    """Its zero point would be left out of the sum: a wrong file, or one that does not run."""
    image = keras.Input((16, 16, 3))
    kernel = keras.layers.Dense(27)(keras.layers.GlobalAveragePooling2D()(image))
    kernel = keras.ops.reshape(kernel, (3, 3, 3, 1))
    out = keras.ops.depthwise_conv(image, kernel, padding="same")
    words = f"{scheme} needs .* constants, and that of DEPTHWISE_CONV_2D .* is computed"
    with pytest.raises(RuntimeFailureError, match=words):
        convert_to_tflite(image, {"out": out}, scheme, _images)


def test_a_number_for_the_whole_image_has_a_range() -> None:
    """A scalar has no channels, whose values a histogram takes in turn."""
    image = keras.Input((16, 16, 3))
    float_model = convert_to_float_tflite(image, {"out": image / (1 + keras.ops.std(image))})
    graph = FlatGraph(float_model)
    ranges = measure_ranges(float_model, _images, "mse")
    [std] = [one for one in graph.operations if graph.kind(one) == "SQRT"]
    tensor = int(std.outputs[0])
    assert graph.shape(tensor) == ()
    largest = max(float(one.std()) for one in _images())
    assert ranges[tensor].high == pytest.approx(largest, rel=1e-5)


def test_the_operation_that_the_runtime_cannot_compute_is_named() -> None:
    image = keras.Input((16, 16, 3))
    numbers = keras.ops.cast(3 + keras.ops.abs(keras.ops.reshape(image, (768,))), "int32")
    out = keras.ops.segment_sum(keras.ops.reshape(image, (768,)), numbers, num_segments=2)
    words = (
        "cannot compute UNSORTED_SEGMENT_SUM '.*' of this graph .*; build it of other operations$"
    )
    with pytest.raises(RuntimeFailureError, match=words):
        convert_to_tflite(image, {"out": out}, "int8", _images)


def test_a_loop_in_16_bits_is_refused() -> None:
    """The quantizer ends the process instead; without the loop it makes the file."""

    def content(unroll: bool) -> bytes:
        image = keras.Input((16, 16, 3))
        rows = keras.layers.Reshape((16, 48))(image)
        out = keras.layers.SimpleRNN(2, unroll=unroll)(rows)
        return convert_to_tflite(image, {"out": out}, "int16x8", _images)

    with pytest.raises(RuntimeFailureError, match=r"no int16x8 of loops .* unroll=True, or choose"):
        content(unroll=False)
    assert FlatGraph(content(unroll=True)).dtype(0) == "int16"
