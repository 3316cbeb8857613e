"""Quantization-aware training: rounding by hand, gradients, and files that compute alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from edgeheads.backbones import create_backbone  # noqa: E402
from edgeheads.compression.prune.sparsity import layer_sparsity  # noqa: E402
from edgeheads.compression.quantize.fake_quantize import (  # noqa: E402
    TIES,
    FakeQuantize,
    fake_quantize,
)
from edgeheads.compression.quantize.qat import (  # noqa: E402
    QuantizeAware,
    choose,
    quantize_aware,
)
from edgeheads.compression.quantize.quantized_layers import (  # noqa: E402
    QuantizedDense,
    kernel_steps,
)
from edgeheads.edge_model import file_outputs  # noqa: E402
from edgeheads.errors import EdgeheadsError  # noqa: E402
from edgeheads.export.flatgraph import FlatGraph, Probe  # noqa: E402
from edgeheads.model import build_model  # noqa: E402
from edgeheads.tasks import TaskType, get_task  # noqa: E402

_SIDE = 32


def _images() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(8):
        yield rng.uniform(-1, 1, (1, _SIDE, _SIDE, 3)).astype(np.float32)


def _network(depth: int = 1) -> keras.Model:
    """Inverted residuals, a bilinear resize, a concatenation and a softmax."""
    layers = keras.layers
    keras.utils.set_random_seed(3)
    image = keras.Input((_SIDE, _SIDE, 3))

    def conv(x: object, filters: int, size: int, strides: int = 1, relu: bool = True) -> object:
        x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        return layers.ReLU(6.0)(x) if relu else x

    def block(x: object) -> object:
        y = conv(x, 32, 1)
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        return layers.Add()([x, conv(y, 16, 1, relu=False)])

    fine = conv(image, 16, 3, 2)
    for _ in range(depth):
        fine = block(fine)
    coarse = conv(fine, 16, 3, 2)
    for _ in range(depth):
        coarse = block(coarse)
    up = layers.UpSampling2D(2, interpolation="bilinear")(coarse)
    maps = layers.Conv2D(4, 1, name="maps")(layers.Concatenate()([fine, up]))
    pooled = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(coarse))
    scores = layers.Dense(5, activation="softmax", name="scores")(pooled)
    model = keras.Model(image, {"maps": maps, "scores": scores})
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [
                    rng.uniform(0.5, 2, gamma.shape),
                    rng.normal(0, 0.5, beta.shape),
                    rng.normal(0, 0.1, mean.shape),
                    rng.uniform(0.1, 1, variance.shape),
                ]
            )
    return model


def _small() -> keras.Model:
    """Two outputs of the names and shapes of `_network`."""
    keras.utils.set_random_seed(0)
    image = keras.Input((_SIDE, _SIDE, 3))
    x = keras.layers.Conv2D(16, 3, 2, padding="same", use_bias=False)(image)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization()(x))
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    maps = keras.layers.Conv2D(4, 1, name="maps")(x)
    scores = keras.layers.Dense(5, activation="softmax", name="scores")(pooled)
    return keras.Model(image, {"maps": maps, "scores": scores})


def _train(aware: QuantizeAware, steps: int = 20) -> None:
    rng = np.random.default_rng(2)
    images = np.concatenate(list(_images()))
    targets = {
        "maps": rng.normal(size=(8, 16, 16, 4)).astype(np.float32),
        "scores": np.eye(5, dtype=np.float32)[rng.integers(0, 5, 8)],
    }
    aware.model.compile(keras.optimizers.Adam(1e-3), {"maps": "mse", "scores": "mse"})
    aware.model.fit(
        images, targets, epochs=steps, batch_size=8, verbose=0, callbacks=aware.callbacks()
    )


def _steps_apart(aware: QuantizeAware) -> np.ndarray:
    """Return by how many quantization steps each output value of file and model differ."""
    graph = FlatGraph(aware.to_tflite())
    probe = Probe(graph, graph.outputs)
    apart = []
    for image, values in zip(_images(), probe.run(_images()), strict=True):
        expected = [np.asarray(one) for one in aware.model(image).values()]
        for tensor in graph.outputs:
            [array] = [one for one in expected if one.shape == graph.shape(tensor)]
            difference = graph.dequantize(tensor, values[tensor]) - array
            apart.append(np.abs(difference / graph.scales(tensor)[0]).ravel())
    return np.round(np.concatenate(apart))


@pytest.fixture(scope="module")
def trained() -> QuantizeAware:
    aware = quantize_aware(_network(), _images)
    _train(aware)
    return aware


def test_activations_by_hand() -> None:
    """255 steps from -1 to 1.55 are 0.01 each."""
    x = np.array([-2.0, -1.0, -0.004, 0.0, 0.126, 1.55, 9.0], np.float32)
    expected = [-1.0, -1.0, 0.0, 0.0, 0.13, 1.55, 1.55]
    assert np.asarray(fake_quantize(x, -1.0, 1.55)) == pytest.approx(expected, abs=1e-6)


def test_kernels_by_hand() -> None:
    """Each channel has its largest magnitude over 127 as its step; one of zeros stays zero."""
    kernel = np.array([[1.27, -127.0, 0.0], [0.014, 50.4, 0.0]], np.float32)
    assert np.asarray(kernel_steps(kernel, (0,)))[0, :2] == pytest.approx([0.01, 1.0])
    assert np.asarray(kernel_steps(kernel, None)).tolist() == [[1.0]]
    product = _dense(kernel, [0.0, 0.0, 0.0], per_channel=True)
    assert product(np.eye(2, dtype=np.float32)) == pytest.approx(
        np.array([[1.27, -127.0, 0.0], [0.01, 50.0, 0.0]]), abs=1e-6
    )


def test_a_kernel_with_one_scale_by_hand() -> None:
    """The step is 127 / 127 for both channels: the first keeps nothing but a one."""
    kernel = np.array([[1.27, -127.0], [0.014, 50.4]], np.float32)
    product = _dense(kernel, [0.0, 0.0], per_channel=False)
    assert product(np.eye(2, dtype=np.float32)).tolist() == [[1.0, -127.0], [0.0, 50.0]]


def test_biases_by_hand() -> None:
    """Steps of 0.5 and 0.01 are products of 0.005, of which 0.0131 is not quite 3."""
    product = _dense(np.array([[1.27]], np.float32), [0.0131], per_channel=True)
    result, whole, size = product(np.array([[0.5]], np.float32), step=0.5)
    assert result == pytest.approx(0.635 + 0.015)
    assert (whole.tolist(), size.tolist()) == ([[127 + 3]], pytest.approx([0.005]))
    assert product(np.array([[0.5]], np.float32)) == pytest.approx(0.635 + 0.0131)


def _dense(kernel: np.ndarray, bias: list[float], *, per_channel: bool) -> Callable[..., Any]:
    layer = QuantizedDense(kernel.shape[1], per_channel=per_channel)
    layer.build((None, kernel.shape[0]))
    layer.set_weights([kernel, np.asarray(bias)])
    return lambda *args, **options: keras.tree.map_structure(np.asarray, layer(*args, **options))


def test_halves_by_hand() -> None:
    """Steps of 1 from -28 to 227: int8 stores zero as -100."""
    x = np.array([0.5, 1.5, -0.5, 100.5, 101.5], np.float32)
    rounded = {ties: np.asarray(fake_quantize(x, -28.0, 227.0, ties)).tolist() for ties in TIES}
    assert rounded == {
        "even": [0.0, 2.0, 0.0, 100.0, 102.0],
        "up": [1.0, 2.0, 0.0, 101.0, 102.0],
        "away": [0.0, 1.0, -1.0, 101.0, 102.0],
    }


def test_the_last_digit_of_a_product_is_that_of_one_multiplication() -> None:
    """In float32, 15 x (0.01 / 0.02) is 7.5, and (15 x 0.01) / 0.02 is 7.4999995."""
    size, step = np.float32(0.01), np.float32(0.02)
    x = np.array([15 * size], np.float32)
    rounded = fake_quantize(x, np.float32(0), 255 * step, terms=[(np.float32([15]), size)])
    assert np.asarray(rounded) / step == pytest.approx(8)
    assert np.asarray(fake_quantize(x, np.float32(0), 255 * step)) / step == pytest.approx(7)


def test_a_sum_is_rounded_in_whole_factors_by_hand() -> None:
    """Halves go up: -0.5 to 0, 0.5 to 1, and 2.5 = 2 x 0.5 + 2 x 0.75 to 3, not to the even 2."""
    one, other = np.float32([1, 2, -1]), np.float32([0, 2, 0])
    terms = [(one, np.float32(0.5)), (other, np.float32(0.75))]
    x = one * np.float32(0.5) + other * np.float32(0.75)
    assert np.asarray(fake_quantize(x, -128.0, 127.0, terms=terms)).tolist() == [1, 3, 0]
    # What a ReLU behind the sum clips is not what the terms say.
    clipped = np.minimum(x, 2)
    assert np.asarray(fake_quantize(clipped, -128.0, 127.0, terms=terms)).tolist() == [1, 2, 0]


def test_the_gradient_passes_the_rounding_and_not_the_clipping() -> None:
    x = tf.constant([-2.0, -0.5, 0.126, 9.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(fake_quantize(x, -1.0, 1.55))
    assert np.asarray(tape.gradient(y, x)).tolist() == [0.0, 1.0, 1.0, 0.0]


def test_a_moving_average_follows_the_batches() -> None:
    layer = FakeQuantize(-1.0, 1.0, "moving_average")
    layer(np.array([[-3.0, 2.0]], np.float32), training=True)
    assert [float(end) for end in layer.range()] == pytest.approx([-1.02, 1.01])
    layer(np.array([[-30.0, 20.0]], np.float32), training=False)
    assert [float(end) for end in layer.range()] == pytest.approx([-1.02, 1.01])


@pytest.mark.parametrize("bounds", [(0.1, 1.0), (-1.0, -0.1), (0.0, 0.0)])
def test_a_range_without_zero_is_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(EdgeheadsError, match="must hold zero"):
        FakeQuantize(*bounds)


def test_the_file_computes_what_was_trained(trained: QuantizeAware) -> None:
    apart = _steps_apart(trained)
    print(f"equal: {np.mean(apart == 0):.4f}, largest difference in steps: {apart.max():.0f}")
    assert apart.max() == 0


@pytest.mark.slow
def test_the_file_of_a_deep_network_computes_what_was_trained() -> None:
    """45 operations, in which one value that is rounded otherwise would reach thousands."""
    aware = quantize_aware(_network(depth=5), _images)
    _train(aware, steps=40)
    apart = _steps_apart(aware)
    print(f"equal: {np.mean(apart == 0):.4f}, largest difference in steps: {apart.max():.0f}")
    assert apart.max() == 0


def test_a_file_with_one_scale_for_each_kernel_computes_what_was_trained() -> None:
    aware = quantize_aware(_network(), _images, per_channel=False)
    _train(aware, steps=3)
    graph = FlatGraph(aware.to_tflite())
    kernels = [
        int(one.inputs[1]) for one in graph.operations if graph.kind(one).endswith("CONV_2D")
    ]
    assert {graph.scales(tensor).size for tensor in kernels} == {1}
    assert _steps_apart(aware).max() == 0


def test_saved_and_loaded(trained: QuantizeAware, tmp_path: object) -> None:
    trained.model.save(f"{tmp_path}/aware.keras")
    loaded = keras.models.load_model(f"{tmp_path}/aware.keras")
    image = next(_images())
    for name, value in trained.model(image).items():
        assert np.asarray(loaded(image)[name]) == pytest.approx(np.asarray(value), abs=1e-6)


def test_the_model_given_is_not_changed() -> None:
    model = _small()
    before = model.get_weights()
    _train(quantize_aware(model, _images), steps=1)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_zeros_stay_zeros() -> None:
    model = _small()
    kernel, bias = model.get_layer("maps").get_weights()
    kernel[..., ::2, :] = 0
    model.get_layer("maps").set_weights([kernel, bias])
    aware = quantize_aware(model, _images)
    _train(aware, steps=2)
    after = aware.float_model()
    assert np.all(after.get_layer("maps").get_weights()[0][..., ::2, :] == 0)
    [maps] = [one for one in layer_sparsity(after) if one.name == "maps"]
    assert (maps.weights, maps.zeros) == (64, 32)
    graph = FlatGraph(aware.to_tflite())
    kernels = [int(one.inputs[1]) for one in graph.operations if graph.kind(one) == "CONV_2D"]
    [stored] = [graph.constant(one) for one in kernels if graph.shape(one) == (4, 1, 1, 16)]
    assert np.all(stored[..., ::2] == 0)
    assert np.count_nonzero(stored[..., 1::2]) > 0


def test_a_layer_that_levels_share_stays_one() -> None:
    """As in a detector: one convolution on two maps, each output with a scale of its own."""
    keras.utils.set_random_seed(0)
    image = keras.Input((_SIDE, _SIDE, 3))
    fine = keras.layers.Conv2D(8, 3, 2, padding="same", activation="relu")(image)
    coarse = keras.layers.Conv2D(8, 3, 2, padding="same", activation="relu")(fine)
    shared = keras.layers.Conv2D(4, 3, padding="same", name="shared")
    model = keras.Model(image, {"fine": shared(fine), "coarse": shared(coarse)})
    aware = quantize_aware(model, _images)
    assert _steps_apart(aware).max() == 0


def _gated() -> keras.Model:
    """What the file computes in other ways: padding apart, a gate, means that are kept maps."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((_SIDE, _SIDE, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu6")(image)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = layers.DepthwiseConv2D(3, 2, activation="relu")(x)
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(16, 1, activation="sigmoid")(squeezed)
    x = layers.Multiply()([x, gate])
    x = layers.Conv2DTranspose(8, 2, 2)(x) + layers.Conv2D(8, 1)(layers.UpSampling2D(2)(x))
    maps = layers.Conv2D(4, 1, name="maps")(layers.MaxPooling2D()(layers.ReLU()(x)))
    flat = layers.Dropout(0.1)(layers.Flatten()(maps))
    return keras.Model(image, {"maps": maps, "scores": layers.Dense(5, name="scores")(flat)})


@pytest.mark.parametrize("per_channel", [True, False])
def test_other_operations_compute_what_was_trained(per_channel: bool) -> None:
    aware = quantize_aware(_gated(), _images, per_channel=per_channel)
    _train(aware, steps=2)
    assert _steps_apart(aware).max() == 0


def test_what_is_computed_from_the_file_stays_float() -> None:
    """The arg max behind it, which no file has, too; the gradient comes through it."""
    image = keras.Input((_SIDE, _SIDE, 3))
    maps = keras.layers.Conv2D(4, 3, padding="same", name="maps")(image)
    best = keras.ops.argmax(maps, axis=-1)
    model = keras.Model(image, {"best": best, "root": keras.ops.sqrt(keras.ops.relu(maps))})
    aware = quantize_aware(
        model, _images, outputs_of=lambda one: {"maps": one.get_layer("maps").output}
    )
    assert len(aware.rounds) == 2  # the image and the maps
    graph = FlatGraph(aware.to_tflite())
    assert [graph.kind(one) for one in graph.operations] == ["CONV_2D"]
    [stored] = Probe(graph, graph.outputs).run([next(_images())])
    [output] = graph.outputs
    root = np.sqrt(np.maximum(graph.dequantize(output, stored[output]), 0))
    assert np.asarray(aware.model(next(_images()))["root"]) == pytest.approx(root, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task",
    [
        TaskType.CLASSIFICATION,
        TaskType.KEYPOINT_DETECTION,
        TaskType.INSTANCE_SEGMENTATION,
        TaskType.SURFACE_NORMALS,
        TaskType.MULTI_TASK,
    ],
)
def test_the_file_of_every_head_computes_what_was_trained(task: TaskType) -> None:
    """On MobileNetV2, every output, to the last integer; multi-task has the heads left out here."""

    def images() -> Iterator[np.ndarray]:
        for image in _images():
            yield np.kron(image, np.ones((1, 2, 2, 1), np.float32))

    keras.utils.set_random_seed(0)
    backbone = create_backbone("mobilenet_v2", (64, 64, 3), width=0.35)
    model = build_model(backbone, task)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(np.concatenate(list(images())), training=True)  # or 50 layers lose all that is in them
    aware = quantize_aware(model, images, outputs_of=file_outputs(get_task(task)))
    graph = FlatGraph(aware.to_tflite())
    model = keras.Model(aware.model.inputs, aware.file_outputs())
    for image, values in zip(images(), Probe(graph, graph.outputs).run(images()), strict=True):
        expected = [np.asarray(one) for one in model(image).values()]
        assert len(expected) == len(graph.outputs)
        for tensor in graph.outputs:
            real, step = graph.dequantize(tensor, values[tensor]), graph.scales(tensor)[0]
            alike = [one for one in expected if one.shape == real.shape]
            apart = [float(np.abs((real - one) / step).max()) for one in alike]
            assert min(apart) < 0.5, (graph.name(tensor), apart)


def test_custom_layers_are_named() -> None:
    class Mine(keras.layers.Layer):
        def call(self, x: object) -> object:
            return x

    image = keras.Input((8, 8, 3))
    with pytest.raises(EdgeheadsError, match=r"custom ones: own \(Mine\)"):
        quantize_aware(keras.Model(image, Mine(name="own")(image)), _images)


def test_only_int8_files_come_of_it(trained: QuantizeAware) -> None:
    with pytest.raises(EdgeheadsError, match="received scheme 'int16x8'"):
        trained.to_tflite("int16x8")


def test_the_worse_of_two_files_is_not_kept() -> None:
    aware = quantize_aware(_small(), _images)
    _train(aware, steps=1)
    scores = iter([0.7, 0.6])
    choice = choose(aware, lambda content: next(scores))
    assert (choice.quantize_aware, choice.before, choice.after) == (False, 0.7, 0.6)
    kernel = aware.folded.get_layer("maps").get_weights()[0]
    assert np.array_equal(aware.model.get_layer("maps").get_weights()[0], kernel)


def test_a_training_that_diverged_gives_the_float_weights_back() -> None:
    aware = quantize_aware(_small(), _images)
    for layer in (aware.model.get_layer("maps"), aware.model.get_layer("round_0")):
        layer.set_weights([np.full_like(one, np.nan) for one in layer.get_weights()])
    with pytest.raises(
        EdgeheadsError, match=r"diverged: its weights hold NaN.*lower learning rate"
    ):
        aware.to_tflite()
    choice = choose(aware, lambda content: 0.5)
    assert (choice.quantize_aware, choice.before) == (False, 0.5)
    assert np.isnan(choice.after)
    assert aware.finite
    assert FlatGraph(choice.content).dtype(FlatGraph(choice.content).inputs[0]) == "int8"


def test_images_of_nan_are_refused() -> None:
    with pytest.raises(EdgeheadsError, match="calibration image 0 must be finite"):
        quantize_aware(_small(), lambda: iter([np.full((1, _SIDE, _SIDE, 3), np.nan, np.float32)]))
