"""Every rule finds the least model it is about, and leaves the one beside it alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

import numpy as np  # noqa: E402
from ai_edge_litert.interpreter import Interpreter  # noqa: E402

from edgeheads.backbones.registry import create_backbone  # noqa: E402
from edgeheads.compression.graph import calls  # noqa: E402
from edgeheads.compression.lint.finding import SEVERITIES  # noqa: E402
from edgeheads.compression.lint.fix import fix_model  # noqa: E402
from edgeheads.compression.lint.layers import WITHOUT_BUILT_IN  # noqa: E402
from edgeheads.compression.lint.operations import lite_operations  # noqa: E402
from edgeheads.compression.lint.rules import RULES, lint_model  # noqa: E402
from edgeheads.device import DeviceProfile, Memory, Quantization, load_device  # noqa: E402
from edgeheads.edge_model import file_outputs  # noqa: E402
from edgeheads.errors import RuntimeFailureError  # noqa: E402
from edgeheads.export.flatgraph import FlatGraph  # noqa: E402
from edgeheads.export.tflite import convert_to_float_tflite, convert_to_tflite  # noqa: E402
from edgeheads.model import build_model  # noqa: E402
from edgeheads.targets.graph import read_operations  # noqa: E402
from edgeheads.tasks import TASKS, TaskType, get_task  # noqa: E402

layers = keras.layers
SIZE = (8, 8, 16)
STEPS = (3, 4)
PER_TENSOR = DeviceProfile(name="npu", quantization=Quantization(weights="per-tensor"))
# 8x8x8 bytes in and 8x8x8 out are 1 kB, which fits; 8x8x9 out do not.
SMALL = DeviceProfile(name="small", title="small", memory=Memory(accelerator_kb=1))
Build = Callable[[], Any]


def model(*stack: Any, shape: tuple[int | None, ...] = SIZE) -> Any:
    image = keras.Input(shape)
    x = image
    for layer in stack:
        x = layer(x)
    return keras.Model(image, x)


class Custom(layers.Layer):
    """A layer of somebody's own."""

    def call(self, inputs: Any) -> Any:
        return inputs


def attention() -> Any:
    tokens = keras.Input((4, 8))
    weights = layers.Softmax(name="it")(layers.Dot(axes=2)([tokens, tokens]))
    return keras.Model(tokens, layers.Dot(axes=(2, 1))([weights, tokens]))


def batch_inside() -> Any:
    """Positions first, as networks of other libraries have them."""
    tokens = keras.Input((4, 8))
    x = layers.Dense(8)(keras.ops.transpose(tokens, (1, 0, 2)))
    return keras.Model(tokens, keras.ops.transpose(x, (1, 0, 2)))


def softmax_at_the_end() -> Any:
    return model(layers.Dense(4), layers.Softmax(), shape=(8,))


def gate(kind: str) -> Any:
    image = keras.Input(SIZE)
    mean = layers.GlobalAveragePooling2D(keepdims=True)(image)
    scale = layers.Conv2D(16, 1, activation=kind)(mean)
    return keras.Model(image, layers.Multiply(name="it")([image, scale]))


def written_out(last: float, operations: bool = False) -> Any:
    image = keras.Input(SIZE)
    if operations:
        gate = keras.ops.relu6(image + 3.0) * last
    else:
        gate = layers.ReLU(6.0)(layers.Rescaling(1.0, 3.0)(image))
        gate = layers.Rescaling(last)(gate)
    return keras.Model(image, layers.Multiply(name="it")([image, gate]))


def spatial_gate() -> Any:
    image = keras.Input(SIZE)
    scale = layers.Conv2D(1, 1, activation="sigmoid")(image)
    return keras.Model(image, layers.Multiply()([image, scale]))


def twice_normal() -> list[Any]:
    return [layers.BatchNormalization(), layers.BatchNormalization()]


def lone(kind: str) -> Any:
    image = keras.Input(SIZE)
    x = layers.Conv2D(16, 1)(image)
    return keras.Model(image, layers.Add()([x, layers.Activation(kind, name="it")(x)]))


def two_readers() -> Any:
    image = keras.Input(SIZE)
    x = layers.Conv2D(16, 1)(image)
    return keras.Model(image, layers.Add()([x, layers.BatchNormalization(name="it")(x)]))


def joined(first: str, second: str) -> Any:
    image = keras.Input(SIZE)
    branches = [layers.Conv2D(8, 1, activation=one)(image) for one in (first, second)]
    return keras.Model(image, layers.Concatenate(name="it")(branches))


def joined_norms(gamma: float) -> Any:
    image = keras.Input(SIZE)
    norms = [layers.BatchNormalization(), layers.BatchNormalization()]
    branches = [norm(layers.Conv2D(8, 1)(image)) for norm in norms]
    built = keras.Model(image, layers.Concatenate(name="it")(branches))
    norms[1].gamma.assign(np.full(8, gamma))
    return built


def spread(least: float) -> Any:
    built = model(layers.Conv2D(16, 1, name="it"))
    kernel = np.ones((1, 1, 16, 16), np.float32)
    kernel[..., 0] = least
    built.get_layer("it").set_weights([kernel, np.zeros(16)])
    return built


def norms(small: float, *after: Any) -> Any:
    """16 channels of the deviation 1, but for the first."""
    built = model(layers.Conv2D(16, 1), layers.BatchNormalization(name="it"), *after)
    built.get_layer("it").gamma.assign([small] + [1.0] * 15)
    return built


def resized(**options: Any) -> Any:
    image = keras.Input((8, 8, 3))
    x = keras.ops.image.resize(image, (4, 4), **options)
    return keras.Model(image, layers.Conv2D(4, 1)(x))


def computed(function: Callable[[Any], Any], shape: tuple[int, ...] = (8, 8, 3)) -> Any:
    image = keras.Input(shape)
    return keras.Model(image, function(image))


def whole(x: Any) -> Any:
    return keras.ops.cast(x, "int32")


# What the converter refuses because of an option or of the inputs.
UNCONVERTIBLE: dict[str, Build] = {
    "bicubic layer": lambda: model(layers.UpSampling2D(2, interpolation="bicubic")),
    "lanczos layer": lambda: model(layers.Resizing(16, 16, interpolation="lanczos5")),
    "antialiasing layer": lambda: model(layers.Resizing(4, 4, antialias=True)),
    "bicubic operation": lambda: resized(interpolation="bicubic"),
    "antialiasing operation": lambda: resized(antialias=True),
    "dilation": lambda: model(layers.Conv2DTranspose(4, 3, dilation_rate=2)),
    "dilation of a line": lambda: model(
        layers.Conv1DTranspose(4, 3, dilation_rate=2), shape=(8, 4)
    ),
    "adaptive pooling to 1": lambda: model(layers.AdaptiveAveragePooling2D(1)),
    "pooling operation": lambda: computed(lambda x: keras.ops.max_pool(x, 2), (4, 4, 4, 2)),
    "pooling": lambda: model(layers.MaxPooling3D(2), shape=(4, 4, 4, 2)),
    "arg max": lambda: computed(lambda x: keras.ops.argmax(x, axis=-1)),
    "places": lambda: computed(lambda x: keras.ops.where(x > 0)[0]),
    "dilation over three axes": lambda: model(
        layers.Conv3D(4, 2, dilation_rate=2), shape=(4, 4, 4, 2)
    ),
    "groups over three axes": lambda: model(layers.Conv3D(4, 2, groups=2), shape=(4, 4, 4, 2)),
}

# What the converter refuses always, by its class in `keras.ops` or `keras.layers`.
_SQUARE = (3, 8, 8)
REFUSED: dict[str, Build] = {
    **{
        name: (lambda name=name: computed(getattr(keras.ops, name.lower())))
        for name in (
            *("Tan", "Sinh", "Cosh", "Arcsin", "Arccos", "Arctan", "Arcsinh", "Arccosh", "Arctanh"),
            *("Argmax", "Argmin", "Nanargmax", "Nanargmin", "Nonzero", "Cumprod", "Nancumprod"),
            *("Nanmedian", "Diagonal", "Erf", "Erfc", "Erfinv", "I0", "Signbit"),
        )
    },
    **{
        name: (lambda name=name: computed(getattr(keras.ops, name.lower()), _SQUARE))
        for name in ("Cholesky", "Det", "Inv", "Logdet", "Pinv")
    },
    **{
        name: (lambda name=name: model(getattr(layers, name)(2), shape=(4, 4, 4, 2)))
        for name in (
            *("AveragePooling3D", "MaxPooling3D"),
            *("AdaptiveAveragePooling3D", "AdaptiveMaxPooling3D"),
        )
    },
    "AffineTransform": lambda: computed(
        lambda x: keras.ops.image.affine_transform(x, np.array([[1, 0, 0, 0, 1, 0, 0, 0.0]]))
    ),
    "Bincount": lambda: computed(lambda x: keras.ops.bincount(whole(x[:, 0, 0])), (8, 8, 3)),
    "BitwiseInvert": lambda: computed(lambda x: keras.ops.bitwise_invert(whole(x))),
    "CategoryEncoding": lambda: model(
        layers.CategoryEncoding(5, output_mode="multi_hot"), shape=(8,)
    ),
    "CholeskyInverse": lambda: computed(keras.ops.linalg.cholesky_inverse, _SQUARE),
    "Cross": lambda: computed(lambda x: keras.ops.cross(x, x + 1)),
    "Eig": lambda: computed(lambda x: keras.ops.eig(x)[0], _SQUARE),
    "Eigh": lambda: computed(lambda x: keras.ops.eigh(x)[0], _SQUARE),
    "HSVToRGB": lambda: computed(keras.ops.image.hsv_to_rgb),
    "InTopK": lambda: computed(lambda x: keras.ops.in_top_k(whole(x[:, 0]), x, 2), (8,)),
    "LeftShift": lambda: computed(lambda x: keras.ops.left_shift(whole(x), 1)),
    "Lstsq": lambda: computed(lambda x: keras.ops.lstsq(x[0], x[0]), (8, 8)),
    "LuFactor": lambda: computed(lambda x: keras.ops.lu_factor(x[0])[0], (8, 8)),
    "MatrixRank": lambda: computed(keras.ops.linalg.matrix_rank, _SQUARE),
    "PerspectiveTransform": lambda: computed(
        lambda x: keras.ops.image.perspective_transform(x, *np.ones((2, 1, 4, 2)))
    ),
    "Polar": lambda: computed(lambda x: keras.ops.real(keras.ops.polar(x, x))),
    "Qr": lambda: computed(lambda x: keras.ops.qr(x)[0], _SQUARE),
    "RGBToHSV": lambda: computed(keras.ops.image.rgb_to_hsv),
    "SearchSorted": lambda: computed(lambda x: keras.ops.searchsorted(x[0], x[0]), (8,)),
    "Slogdet": lambda: computed(lambda x: keras.ops.slogdet(x)[1], _SQUARE),
    "Solve": lambda: computed(lambda x: keras.ops.solve(x, x), _SQUARE),
    "SolveTriangular": lambda: computed(lambda x: keras.ops.solve_triangular(x, x), _SQUARE),
    "SVD": lambda: computed(lambda x: keras.ops.svd(x)[1], _SQUARE),
}

# rule -> models it finds something in, at the layer "it"; models it does not.
CASES: dict[str, tuple[list[Build], list[Build]]] = {
    "custom-layer": (
        [lambda: model(Custom(name="it")), lambda: model(layers.Lambda(abs, name="it"))],
        [lambda: model(layers.Conv2D(8, 1), keras.ops.relu)],
    ),
    "unconvertible": (
        [
            lambda: model(layers.UpSampling2D(2, interpolation="bicubic", name="it")),
            lambda: model(layers.Conv2DTranspose(4, 3, dilation_rate=2, name="it")),
        ],
        [
            resized,
            lambda: model(layers.UpSampling2D(2, interpolation="bilinear")),
            lambda: model(layers.Conv2DTranspose(4, 3, strides=2)),
            lambda: model(layers.AdaptiveMaxPooling2D(3)),
            lambda: computed(lambda x: keras.ops.average_pool(x, 2), (8, 3)),
            lambda: computed(lambda x: keras.ops.where(x > 0, x, -x)),
        ],
    ),
    "dynamic-shape": (
        [lambda: keras.Model(*[keras.Input((None, 8, 3), name="it")] * 2)],
        [lambda: model(layers.Conv2D(8, 1)), batch_inside],
    ),
    "not-finite": (
        [lambda: spread(np.nan), lambda: spread(np.inf)],
        [lambda: spread(0.0)],
    ),
    "high-rank": (
        [lambda: model(layers.Conv3D(8, 1, name="it"), shape=(4, 4, 4, 8))],
        [lambda: model(layers.Reshape((8, 128)), layers.Conv1D(8, 1))],
    ),
    "large-tensor": (
        [lambda: model(layers.Conv2D(9, 1, name="it"), shape=(8, 8, 8))],
        [lambda: model(layers.Conv2D(8, 1), shape=(8, 8, 8))],
    ),
    "adaptive-pooling": (
        [lambda: model(layers.AdaptiveAveragePooling2D(4, name="it"))],
        [lambda: model(layers.AveragePooling2D(2))],
    ),
    "odd-channels": (
        [lambda: model(layers.Conv2D(12, 1, name="it"), layers.ReLU(), layers.Conv2D(8, 1))],
        [
            lambda: model(layers.Conv2D(16, 1), layers.ReLU(), layers.Conv2D(8, 1)),
            lambda: model(layers.Conv2D(3, 1)),  # the number of classes
            lambda: model(
                layers.GlobalAveragePooling2D(keepdims=True),
                layers.Conv2D(12, 1),
                layers.Conv2D(8, 1),
            ),
        ],
    ),
    "transposed-convolution": (
        [lambda: model(layers.Conv2DTranspose(8, 3, strides=2, name="it"))],
        [lambda: model(layers.UpSampling2D(2), layers.Conv2D(8, 3))],
    ),
    "resize-factor": (
        [lambda: model(layers.Resizing(12, 12, name="it"))],
        [lambda: model(layers.Resizing(16, 24))],
    ),
    "device-operation": (
        [
            lambda: model(layers.Activation("hard_swish", name="it")),
            lambda: model(layers.LeakyReLU(name="it")),
            lambda: model(layers.AdaptiveMaxPooling2D(4, name="it")),
        ],
        [
            lambda: model(layers.ReLU(6.0), layers.Conv2D(8, 3, activation="sigmoid")),
            lambda: computed(lambda x: keras.ops.matmul(x, np.ones((3, 3), np.float32))),
        ],
    ),
    "float-operation": (
        [
            lambda: model(layers.LSTM(4, name="it"), shape=STEPS),
            lambda: model(layers.Bidirectional(layers.GRU(4), name="it"), shape=STEPS),
            lambda: model(layers.ELU(name="it")),
        ],
        [
            lambda: model(layers.LSTM(4, unroll=True), shape=STEPS),
            lambda: model(layers.Bidirectional(layers.GRU(4, unroll=True)), shape=STEPS),
            lambda: computed(lambda x: x * x - (0 - x)),
        ],
    ),
    "hard-swish": (
        [
            lambda: model(layers.Activation("hard_swish", name="it")),
            lambda: model(layers.Conv2D(8, 1, activation="hard_silu", name="it")),
            lambda: written_out(1 / 6),
            lambda: written_out(1 / 6, operations=True),
        ],
        [lambda: model(layers.ReLU(6.0)), lambda: written_out(1.0), lambda: gate("hard_sigmoid")],
    ),
    "smooth-activation": (
        [
            lambda: model(layers.Activation("gelu", name="it")),
            lambda: model(layers.Dense(8, activation="swish", name="it")),
        ],
        [lambda: model(layers.Activation("relu")), lambda: model(layers.Activation("sigmoid"))],
    ),
    "outside-xnnpack": (
        [
            lambda: model(layers.ReLU(name="it")),
            lambda: lone("relu"),
            lambda: lone("relu6"),
            lambda: model(layers.AveragePooling2D(2, name="it")),
            lambda: model(layers.PReLU(name="it")),
        ],
        [
            lambda: model(layers.Conv2D(8, 1), layers.BatchNormalization(), layers.ReLU(6.0)),
            lambda: model(layers.MaxPooling2D(2), layers.ReLU()),
            lambda: model(layers.GlobalAveragePooling2D()),
        ],
    ),
    "squeeze-excitation": (
        [lambda: gate("sigmoid"), lambda: gate("hard_sigmoid"), lambda: gate("relu6")],
        [lambda: gate("linear"), spatial_gate],
    ),
    "layer-norm": (
        [
            lambda: model(layers.LayerNormalization(name="it")),
            lambda: model(layers.RMSNormalization(name="it")),
        ],
        [lambda: model(layers.Conv2D(8, 1), layers.BatchNormalization())],
    ),
    "unfolded-batch-norm": (
        [
            lambda: model(layers.ReLU(), layers.BatchNormalization(name="it")),
            lambda: model(
                layers.Conv2D(8, 1, activation="relu"), layers.BatchNormalization(name="it")
            ),
            lambda: model(
                layers.Conv2D(8, 1), layers.ZeroPadding2D(1), layers.BatchNormalization(name="it")
            ),
            two_readers,
        ],
        [
            lambda: model(layers.Conv2D(8, 1), layers.BatchNormalization(), layers.ReLU()),
            lambda: model(layers.Conv2D(8, 1), layers.Dropout(0.1), layers.BatchNormalization()),
            lambda: model(layers.Dense(8), layers.Activation("linear"), *twice_normal()),
            lambda: model(
                layers.EinsumDense("bhwc,cd->bhwd", (8, 8, 8)), layers.BatchNormalization()
            ),
        ],
    ),
    "softmax-attention": (
        [
            attention,
            lambda: keras.Model(
                *(lambda x: (x, layers.MultiHeadAttention(2, 4, name="it")(x, x)))(
                    keras.Input((4, 8))
                )
            ),
        ],
        [softmax_at_the_end],
    ),
    "unlike-concatenation": (
        [lambda: joined("sigmoid", "linear"), lambda: joined_norms(5.0)],
        [
            lambda: joined("sigmoid", "sigmoid"),
            lambda: joined("linear", "linear"),
            lambda: joined_norms(3.0),
        ],
    ),
    "activation-spread": (
        [lambda: norms(0.03), lambda: norms(0.03, layers.ReLU())],
        [lambda: norms(0.032), lambda: norms(0.0), lambda: norms(0.2, layers.ReLU(6.0))],
    ),
    "weight-spread": ([lambda: spread(0.03)], [lambda: spread(0.032), lambda: spread(0.0)]),
}


# Rules that need a device.
DEVICES = {"device-operation": load_device("coral-usb"), "large-tensor": SMALL}


def found(rule: str, built: Any) -> list[Any]:
    return [one for one in lint_model(built, DEVICES.get(rule)) if one.rule == rule]


def test_every_rule_has_its_models() -> None:
    """A rule of the table without a case here fails; ids are unique, severities known."""
    assert sorted(CASES) == sorted(rule.id for rule in RULES)
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert {rule.severity for rule in RULES} == set(SEVERITIES)
    assert all(rule.title and rule.why and rule.instead for rule in RULES)


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_finds_what_it_is_about(rule: str) -> None:
    """One finding, at the layer named "it"."""
    for build in CASES[rule][0]:
        assert [one.layer for one in found(rule, build())] == ["it"]


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_leaves_others_alone(rule: str) -> None:
    """The model that does it right has no finding of the rule."""
    for build in CASES[rule][1]:
        assert found(rule, build()) == []


def test_what_is_refused_always_has_its_models() -> None:
    """A name of the table without a case here fails."""
    assert set(REFUSED) == WITHOUT_BUILT_IN


@pytest.mark.parametrize(
    "build",
    [
        *(pytest.param(build, id=name) for name, build in UNCONVERTIBLE.items()),
        *(
            pytest.param(build, id=name, marks=() if name == "Argmax" else pytest.mark.slow)
            for name, build in REFUSED.items()
        ),
    ],
)
def test_what_is_called_unconvertible_is_refused_by_the_converter(build: Build) -> None:
    built = build()
    [one] = found("unconvertible", built)
    assert one.severity == "error"
    # Some do not even come to the converter.
    with pytest.raises((RuntimeFailureError, ValueError)):
        convert_to_float_tflite(built.inputs[0], {"result": built.outputs[0]})


@pytest.mark.slow
@pytest.mark.parametrize("stays", [True, False])
def test_whether_a_normalization_stays_in_the_file(stays: bool, tmp_path: Path) -> None:
    """As a product with a constant for each channel."""
    for build in CASES["unfolded-batch-norm"][0 if stays else 1]:
        built = build()
        for layer in built.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.set_weights([np.full(one.shape, 1.5) for one in layer.weights])
        file = tmp_path / "model.tflite"
        file.write_bytes(convert_to_float_tflite(built.inputs[0], {"y": built.outputs[0]}))
        assert ("MUL" in {one.name for one in read_operations(file)}) == stays


@pytest.mark.parametrize("build", CASES["unconvertible"][1])
def test_what_is_not_converts(build: Build) -> None:
    built = build()
    assert convert_to_float_tflite(built.inputs[0], {"result": built.outputs[0]})


def test_a_transposed_convolution_that_is_an_operation() -> None:
    """It has no kernel of its own to look at."""
    kernel = np.ones((2, 2, 3, 3), np.float32)
    built = computed(lambda x: keras.ops.conv_transpose(x, kernel, strides=2))
    assert [one.kind for one in found("transposed-convolution", built)] == ["ConvTranspose"]


# keras.ops -> the class of the finding.
WRITTEN_OUT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "layer": (lambda x: (x - mean(x)) / keras.ops.sqrt(keras.ops.var(x, -1, True) + 1e-5), "Sqrt"),
    "inverse": (lambda x: x * keras.ops.rsqrt(keras.ops.var(x, -1, True) + 1e-5), "Rsqrt"),
    "square": (lambda x: x * keras.ops.rsqrt(mean(keras.ops.square(x)) + 1e-5), "Rsqrt"),
    "product": (lambda x: x / keras.ops.sqrt(mean(x * x)), "Sqrt"),
    "deviation": (lambda x: x / (keras.ops.std(x, -1, keepdims=True) + 1e-5), "Std"),
    "length": (lambda x: x / keras.ops.norm(x, axis=-1, keepdims=True), "Norm"),
}


def mean(x: Any) -> Any:
    return keras.ops.mean(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("what", WRITTEN_OUT)
def test_a_normalization_that_is_written_out(what: str) -> None:
    function, kind = WRITTEN_OUT[what]
    [one] = found("layer-norm", computed(function))
    assert one.kind == kind
    assert one.detail == "written out; computes its statistics over 8x8x3 values"


def test_a_root_is_no_normalization() -> None:
    """Nor is a deviation that is given out."""
    assert found("layer-norm", computed(lambda x: x / keras.ops.sqrt(x + 1))) == []
    assert found("layer-norm", computed(lambda x: x / keras.ops.sqrt(mean(x)))) == []
    assert found("layer-norm", computed(lambda x: keras.ops.std(x, axis=-1))) == []


def test_attention_that_is_an_operation() -> None:
    built = computed(lambda x: keras.ops.dot_product_attention(x, x, x))
    assert [one.kind for one in found("softmax-attention", built)] == ["DotProductAttention"]


@pytest.mark.parametrize("join", ["concatenate", "stack", "hstack", "vstack", "dstack"])
def test_joining_operations_share_one_scale(join: str) -> None:
    """A sigmoid and values of any size; the file gives both parts the scale of the whole."""

    def function(x: Any) -> Any:
        parts = [layers.Conv2D(3, 1, activation=one)(x) for one in ("sigmoid", "linear")]
        return getattr(keras.ops, join)(parts)

    assert len(found("unlike-concatenation", computed(function))) == 1


def test_stacked_values_share_one_scale_in_the_file(tmp_path: Path) -> None:
    image = keras.Input((4,))
    parts = [layers.Dense(4, activation=one)(image) for one in ("sigmoid", "linear")]
    built = keras.Model(image, keras.ops.stack(parts, axis=-1))
    int8_operations(built, tmp_path)
    graph = FlatGraph((tmp_path / "model.tflite").read_bytes())
    [pack] = [one for one in graph.operations if graph.kind(one) == "PACK"]
    assert len({float(graph.scales(int(one))[0]) for one in (*pack.inputs, *pack.outputs)}) == 1


# What is told of the operations of a file from layers and operations.
MADE: dict[str, Build] = {
    **{
        name: (lambda name=name: computed(getattr(keras.ops, name.lower())))
        for name in ("Ceil", "Cos", "Exp", "Floor", "Negative", "Round", "Sign", "Sin", "Square")
    },
    **{
        name: (lambda name=name: model(getattr(layers, name)()))
        for name in (
            *("LayerNormalization", "LeakyReLU", "MaxPooling2D", "PReLU", "RMSNormalization"),
            *("GlobalAveragePooling2D", "GlobalMaxPooling2D"),
        )
    },
    **{
        name: (lambda name=name: computed(lambda x: getattr(layers, name)()([x, layers.ReLU()(x)])))
        for name in ("Add", "Concatenate", "Multiply")
    },
    **{
        name: (lambda name=name: model(getattr(layers, name)(4, 3)))
        for name in ("Conv2D", "Conv2DTranspose", "SeparableConv2D")
    },
    **{
        name: (lambda name=name: model(getattr(layers, name)(4), shape=STEPS))
        for name in ("GRU", "LSTM", "SimpleRNN")
    },
    **{
        f"ConvLSTM{rank}D": (
            lambda rank=rank: model(
                getattr(layers, f"ConvLSTM{rank}D")(4, 3), shape=(3, *[4] * rank, 2)
            )
        )
        for rank in (1, 2, 3)
    },
    "AdaptiveAveragePooling2D": lambda: model(layers.AdaptiveAveragePooling2D(4)),
    "AdaptiveMaxPooling2D": lambda: model(layers.AdaptiveMaxPooling2D(3)),
    "AveragePooling2D": lambda: model(layers.AveragePooling2D(2)),
    "Bidirectional": lambda: model(layers.Bidirectional(layers.LSTM(4)), shape=STEPS),
    "Cumsum": lambda: computed(lambda x: keras.ops.cumsum(x, axis=1)),
    "Dense": lambda: model(layers.Dense(4)),
    "DepthwiseConv2D": lambda: model(layers.DepthwiseConv2D(3)),
    "ELU": lambda: model(layers.ELU()),
    "FloorDivide": lambda: computed(lambda x: x // 2.0),
    "ForiLoop": lambda: computed(lambda x: keras.ops.fori_loop(0, 3, lambda i, y: y + 1, x)),
    "Map": lambda: computed(lambda x: keras.ops.map(lambda y: y * 2, x)),
    "Matmul": lambda: computed(
        lambda x: keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1))), (4, 8)
    ),
    "Mod": lambda: computed(lambda x: x % 2.0),
    "MultiHeadAttention": lambda: computed(lambda x: layers.MultiHeadAttention(2, 4)(x, x), (4, 8)),
    "RNN": lambda: model(layers.RNN(layers.LSTMCell(4)), shape=STEPS),
    "Scan": lambda: computed(
        lambda x: keras.ops.scan(lambda y, z: (y + z, y), x[0, 0], x[0])[1], STEPS
    ),
    "Sort": lambda: computed(keras.ops.sort),
    "Stack": lambda: computed(lambda x: keras.ops.stack([x, x + 1], axis=1), (8,)),
    "TopK": lambda: computed(lambda x: keras.ops.top_k(x, 2)[0]),
    "WhileLoop": lambda: computed(
        lambda x: keras.ops.while_loop(lambda y: keras.ops.sum(y) < 1, lambda y: (y + 1,), (x,))[0]
    ),
    "ZeroPadding2D": lambda: model(layers.ZeroPadding2D(1)),
}


def int8_operations(built: Any, folder: Path) -> list[Any]:
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(1, *built.inputs[0].shape[1:])).astype(np.float32) for _ in "123"]
    result = keras.tree.flatten(built.outputs)[0]
    content = convert_to_tflite(built.inputs[0], {"y": result}, "int8", lambda: iter(images))
    file = folder / "model.tflite"
    file.write_bytes(content)
    return read_operations(file)


@pytest.mark.parametrize(
    "name",
    [
        one if one in ("LSTM", "Square", "Stack") else pytest.param(one, marks=pytest.mark.slow)
        for one in MADE
    ],
)
def test_what_layers_become_is_in_the_int8_file(name: str, tmp_path: Path) -> None:
    """And what is said to stay float does."""
    built = MADE[name]()
    [call] = [one for one in calls(built) if type(one.layer).__name__ == name]
    made = int8_operations(built, tmp_path)
    assert set(lite_operations(call)) <= {one.name for one in made}
    is_float = {
        one.name
        for one in made
        if any(tensor.dtype == "float32" for tensor in (*one.inputs, *one.outputs))
    }
    stays = bool(is_float - {"QUANTIZE", "DEQUANTIZE"})
    assert stays == bool(found("float-operation", built))


@pytest.mark.slow
@pytest.mark.parametrize("outside", [True, False])
def test_what_xnnpack_leaves_to_the_interpreter(outside: bool, tmp_path: Path) -> None:
    """In int8, where it takes a graph in one part, in several, or not at all."""
    for build in CASES["outside-xnnpack"][0 if outside else 1]:
        int8_operations(build(), tmp_path)
        interpreter = Interpreter(str(tmp_path / "model.tflite"), num_threads=1)
        interpreter.allocate_tensors()
        nodes = [one["op_name"] for one in interpreter._get_ops_details()]
        assert (nodes.count("DELEGATE") != 1) == outside


def test_a_device_without_xnnpack_is_spared_its_gaps() -> None:
    built = lone("relu")
    assert found("outside-xnnpack", built)
    coral = lint_model(built, load_device("coral-usb"))
    assert [one for one in coral if one.rule == "outside-xnnpack"] == []


def test_details_name_layers_and_figures() -> None:
    """Worked by hand: of 16 channels one is 0.03 of the largest, less than 4/127 = 0.0315."""
    [one] = found("weight-spread", spread(0.03))
    assert one.detail.startswith("1 of 16 channels would use fewer than 4 of 127 steps")
    assert "33.3 times" in one.detail
    [one] = found("unlike-concatenation", joined_norms(5.0))
    assert "about -6 to 6; " in one.detail
    assert "about -30 to 30" in one.detail
    [one] = found("odd-channels", CASES["odd-channels"][0][0]())
    assert one.detail == "12 channels cost about as much as 16"


def test_weight_spread_is_as_bad_as_the_device_makes_it() -> None:
    """A warning with one scale per tensor, nothing with one per channel, else a note."""
    built = spread(0.03)
    assert [one.severity for one in lint_model(built, PER_TENSOR)] == ["warning"]
    assert [one.severity for one in lint_model(built)] == ["note"]
    assert lint_model(built, load_device("raspberry-pi-5")) == []


def test_a_float_device_is_spared_the_rules_of_int8() -> None:
    """Hard-swish does no harm there; a transposed convolution does."""
    device = DeviceProfile(name="f", quantization=Quantization(precisions=("float32",)))
    built = model(layers.Activation("hard_swish"), layers.Conv2DTranspose(8, 2, strides=2))
    assert [one.rule for one in lint_model(built, device)] == ["transposed-convolution"]


def test_findings_are_in_the_order_of_the_layers() -> None:
    """Layer by layer, whichever rule found it; a layer that is called twice is found once."""
    image = keras.Input(SIZE)
    shared = layers.Activation("gelu", name="shared")
    x = layers.Activation("hard_swish", name="first")(image)
    built = keras.Model(image, layers.Add()([shared(x), shared(image)]))
    assert [one.layer for one in lint_model(built)] == ["first", "shared"]


def test_what_is_computed_from_the_results_of_the_file_is_not_looked_at() -> None:
    """A file of keypoints ends at heatmaps; the model goes on to an arg max, which has no int8."""
    built = build_model(create_backbone("tiny", (32, 32, 3)), TaskType.KEYPOINT_DETECTION)
    ends = file_outputs(get_task(TaskType.KEYPOINT_DETECTION))
    assert [one.kind for one in lint_model(built) if one.severity == "error"] == ["Argmax"]
    assert [one for one in lint_model(built, outputs_of=ends) if one.severity == "error"] == []
    fixed = fix_model(built, outputs_of=ends)
    assert [one for one in fixed.findings if one.severity == "error"] == []
    assert fixed.model.output_names == built.output_names


@pytest.fixture(scope="module")
def mobilenet() -> Any:
    return create_backbone("mobilenet_v2", (64, 64, 3))


@pytest.mark.parametrize(
    "task",
    [
        one if one is TaskType.CLASSIFICATION else pytest.param(one, marks=pytest.mark.slow)
        for one in TaskType
    ],
)
def test_efficient_heads_have_no_errors(mobilenet: Any, task: TaskType) -> None:
    """The efficient head of every task on MobileNetV2, and no activation that int8 is slow at."""
    outputs_of = file_outputs(get_task(task)) if task in TASKS else None
    found = lint_model(build_model(mobilenet, task), outputs_of=outputs_of)
    assert [one for one in found if one.severity == "error"] == []
    assert {one.rule for one in found} & {"hard-swish", "smooth-activation"} == set()
