"""What `--fix` rewrites computes the same, and is what the converter makes fast operations of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.lint import fix  # noqa: E402
from edgeheads.compression.lint.fix import _difference, fix_model, save_fixed  # noqa: E402
from edgeheads.compression.lint.hard_swish import expand_hard_swish  # noqa: E402
from edgeheads.errors import CheckFailedError, EdgeheadsError  # noqa: E402
from edgeheads.export.tflite import convert_to_float_tflite  # noqa: E402
from edgeheads.targets.graph import read_operations  # noqa: E402

layers = keras.layers


def outputs(model: Any) -> Any:
    x = np.random.default_rng(1).uniform(-4, 4, (4, *model.input.shape[1:])).astype(np.float32)
    return np.asarray(model(x, training=False))


def block() -> Any:
    """A block of MobileNetV3: hard-swish, depthwise, hard-swish, gate, projection, residual."""
    image = keras.Input((8, 8, 8))
    x = layers.Conv2D(16, 1, name="expand")(image)
    x = layers.Activation("hard_swish", name="first")(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Activation("hard_silu", name="second")(layers.BatchNormalization()(x))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(16, 1, activation="hard_sigmoid", name="squeeze")(gate)
    x = layers.Conv2D(8, 1, name="project")(layers.Multiply(name="excite")([x, gate]))
    return keras.Model(image, layers.Add()([image, layers.BatchNormalization()(x)]))


def names(model: Any) -> set[str]:
    return {layer.name for layer in model.layers}


def test_a_block_of_mobilenet_v3() -> None:
    """The factors go into the three layers that read a hard-swish, through gate and pooling."""
    built = block()
    for layer in built.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([np.full(w.shape, 1.5 + i) for i, w in enumerate(layer.weights)])
    fixed = fix_model(built)
    np.testing.assert_allclose(outputs(fixed.model), outputs(built), rtol=1e-4, atol=1e-4)
    assert (fixed.folded_norms, fixed.expanded, fixed.equalization) == (3, 2, None)
    assert fixed.difference < 1e-5
    assert {"first_gate", "second_product"} <= names(fixed.model)
    assert not {"first_sixth", "second_sixth"} & names(fixed.model)
    assert {one.rule for one in fixed.findings} == {"squeeze-excitation"}


def test_the_kernel_takes_up_the_factor() -> None:
    """A sixth of the kernel, and all of the bias."""
    image = keras.Input((4,))
    x = layers.Activation("hard_swish")(image)
    built = keras.Model(image, layers.Dense(2, name="dense")(x))
    built.get_layer("dense").set_weights([np.full((4, 2), 6.0), np.array([1.0, 2.0])])
    kernel, bias = expand_hard_swish(built).get_layer("dense").get_weights()
    np.testing.assert_allclose(kernel, np.ones((4, 2)), rtol=1e-6)
    np.testing.assert_array_equal(bias, [1.0, 2.0])
    np.testing.assert_array_equal(built.get_layer("dense").get_weights()[0], np.full((4, 2), 6.0))


@pytest.mark.parametrize("end", ["output", "add", "square", "shared", "bent"])
def test_where_no_kernel_can_take_up_the_factor(end: str) -> None:
    """x is divided in front of the product, and the function is the same."""
    image = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 1, activation="hard_swish", name="swish")(image)
    shared = layers.Conv2D(4, 1)
    y = {
        "output": lambda: [x],
        "add": lambda: [layers.Conv2D(4, 1)(layers.Add()([x, image]))],
        "square": lambda: [layers.Conv2D(4, 1)(layers.Multiply()([x, x]))],
        "shared": lambda: [layers.Add()([shared(x), shared(image)])],
        "bent": lambda: [layers.Conv2D(4, 1)(layers.Activation("sigmoid")(x))],
    }[end]()[0]
    built = keras.Model(image, y)
    fixed = expand_hard_swish(built)
    assert "swish_sixth" in names(fixed)
    np.testing.assert_allclose(outputs(fixed), outputs(built), rtol=1e-4, atol=1e-5)


def test_what_is_expanded_is_no_gate() -> None:
    """Behind pooling, x and relu6(x + 3) are as small as a gate."""
    image = keras.Input((1, 1, 8))
    x = layers.Activation("hard_swish")(layers.Conv2D(8, 1)(image))
    assert fix_model(keras.Model(image, layers.Conv2D(8, 1)(x))).findings == []


def test_two_factors_meet_in_one_product() -> None:
    """The layer behind takes up 1/36."""
    image = keras.Input((8, 8, 4))
    branches = [layers.Conv2D(4, 1, activation="hard_swish")(image) for _ in range(2)]
    x = layers.Conv2D(4, 1, name="behind", use_bias=False)(layers.Multiply()(branches))
    built = keras.Model(image, x)
    fixed = expand_hard_swish(built)
    old, new = (one.get_layer("behind").get_weights()[0] for one in (built, fixed))
    np.testing.assert_allclose(new, old / 36, rtol=1e-5)
    np.testing.assert_allclose(outputs(fixed), outputs(built), rtol=1e-4, atol=1e-5)


def test_a_written_out_hard_swish() -> None:
    """As models of Keras 2 have it; the layers of the old form are gone."""
    image = keras.Input((8, 8, 4))
    gate = layers.ReLU(6.0)(layers.Rescaling(1.0, 3.0, name="shift")(image))
    x = layers.Multiply(name="swish")([layers.Rescaling(1 / 6)(gate), image])
    built = keras.Model(image, layers.Conv2D(4, 1)(x))
    fixed = fix_model(built)
    assert fixed.expanded == 1
    assert "swish_product" in names(fixed.model)
    assert "shift" not in names(fixed.model)
    np.testing.assert_allclose(outputs(fixed.model), outputs(built), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("with_factor", [True, False])
def test_the_converter_does_not_make_hard_swish_again(tmp_path: Path, with_factor: bool) -> None:
    """It knows the written-out form that ends in the factor; neither of ours does."""
    image = keras.Input((8, 8, 4))
    x = layers.Activation("hard_swish")(layers.Conv2D(8, 3)(image))
    built = keras.Model(image, x if with_factor else layers.Conv2D(8, 3)(x))
    kinds = []
    for one in (built, expand_hard_swish(built)):
        file = tmp_path / "model.tflite"
        file.write_bytes(convert_to_float_tflite(one.inputs[0], {"y": one.outputs[0]}))
        kinds.append({operation.name for operation in read_operations(file)})
    assert "HARD_SWISH" in kinds[0]
    assert "HARD_SWISH" not in kinds[1]


def test_unlike_weights_are_equalized() -> None:
    """Where weight-spread is found; the finding is gone afterwards."""
    image = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 1, activation="relu", name="a")(image)
    built = keras.Model(image, layers.Conv2D(8, 1, name="b")(x))
    channels = np.logspace(0, 2, 8)
    built.get_layer("a").set_weights([np.ones((1, 1, 4, 8)) * channels, np.zeros(8)])
    built.get_layer("b").set_weights([np.ones((1, 1, 8, 8)), np.zeros(8)])
    fixed = fix_model(built)
    assert fixed.equalization is not None
    assert fixed.findings == []
    # By hand: a's channels differ 100 times, then sqrt(100); b's never do. The median of both.
    equalized = fixed.as_json()["equalized"]
    assert equalized["chains"] == [["a", "b"]]
    assert equalized["spread_before"] == pytest.approx(50.5)
    assert equalized["spread_after"] == pytest.approx(5.5)


def test_what_cannot_be_equalized_is_not_told_of() -> None:
    """ReLU6 clips every channel at the same value."""
    image = keras.Input((8, 8, 4))
    x = layers.ReLU(6.0)(layers.Conv2D(8, 1, name="a")(image))
    built = keras.Model(image, layers.Conv2D(8, 1)(x))
    channels = np.logspace(0, 2, 8)
    built.get_layer("a").set_weights([np.ones((1, 1, 4, 8)) * channels, np.zeros(8)])
    fixed = fix_model(built)
    assert fixed.equalization is None
    assert [one.rule for one in fixed.findings] == ["weight-spread"]


class Mine(layers.Layer):
    """A layer of somebody's own."""

    def call(self, inputs: Any) -> Any:
        return inputs


def test_a_custom_layer_is_refused() -> None:
    """The text names it."""
    image = keras.Input((4,))
    with pytest.raises(EdgeheadsError, match=r"custom layer\(s\) mine; replace them"):
        fix_model(keras.Model(image, Mine(name="mine")(image)))


def test_the_given_file_is_not_written_over(tmp_path: Path) -> None:
    """Nor is anything but a .keras file written; what is written loads."""
    source = tmp_path / "model.keras"
    model = block()
    model.save(source)
    before = source.read_bytes()
    with pytest.raises(EdgeheadsError, match="--fix does not change MODEL"):
        save_fixed(model, source, tmp_path / "." / "model.keras")
    with pytest.raises(EdgeheadsError, match=r"writes a \.keras file, received .*fixed\.h5"):
        save_fixed(model, source, tmp_path / "fixed.h5")
    save_fixed(fix_model(model).model, source, tmp_path / "new" / "fixed.keras")
    assert source.read_bytes() == before
    loaded = keras.saving.load_model(tmp_path / "new" / "fixed.keras")
    np.testing.assert_allclose(outputs(loaded), outputs(model), rtol=1e-4, atol=1e-4)
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["fixed.keras"]


@pytest.mark.parametrize(
    "end",
    [
        [keras.layers.Dense(4, activation="softmax")],
        [keras.layers.Dense(4), keras.layers.Softmax()],
        [keras.layers.Dense(4), keras.layers.Activation("softmax")],
    ],
)
def test_a_softmax_hides_no_difference(end: Any) -> None:
    """All biases doubled: the probabilities are the same, the logits are not."""
    image = keras.Input((4,))
    x = image
    for layer in end:
        x = layer(x)
    built = keras.Model(image, x)
    other = keras.models.clone_model(built)
    kernel = np.full((4, 4), 1e-9, np.float32)
    built.layers[1].set_weights([kernel, np.full(4, 1e-3)])
    other.layers[1].set_weights([kernel, np.full(4, 2e-3)])
    assert np.array_equal(*(one(np.ones((1, 4), np.float32)) for one in (built, other)))
    assert _difference(built, other) == pytest.approx(1.0, rel=1e-2)


def cancelling(bias: float) -> Any:
    """What a normalization leaves of values around a bias, of which it subtracts all."""
    image = keras.Input((4,))
    built = keras.Model(image, layers.BatchNormalization()(layers.Dense(4)(image)))
    kernel = np.random.default_rng(0).normal(size=(4, 4))
    built.layers[1].set_weights([kernel, np.full(4, bias)])
    built.layers[2].set_weights([np.ones(4), np.zeros(4), np.full(4, bias), np.ones(4)])
    return built


def test_a_model_that_only_rounding_moves_is_rewritten() -> None:
    """Of values around 100,000, float32 keeps steps of 1/128: folded, nothing is subtracted."""
    fixed = fix_model(cancelling(1e5))
    assert fixed.folded_norms == 1
    assert 1e-3 < fixed.difference < 2e-2


def test_an_arg_max_behind_the_outputs_of_the_file_is_not_compared() -> None:
    """Rounding decides which of two close values it names."""
    built = cancelling(1e5)
    values = built.outputs[0]
    both = keras.Model(built.input, [values, keras.ops.argmax(values, axis=-1)])
    fixed = fix_model(both, outputs_of=lambda model: {"values": model.outputs[0]})
    assert fixed.difference < 2e-2
    assert len(fixed.model.outputs) == 2


def test_a_rewrite_that_computes_something_else_is_refused(monkeypatch: Any) -> None:
    """Where the model itself is steady, and where it is not."""

    def wrong(model: Any) -> Any:
        twin = keras.models.clone_model(model)
        twin.set_weights([one * 1.5 for one in model.get_weights()])
        return twin

    monkeypatch.setattr(fix, "fold_batch_norms", wrong)
    for bias, allowed in ((0.0, "0.001"), (1e5, "0.0")):
        with pytest.raises(CheckFailedError, match=rf"at most {allowed}.* Nothing was written"):
            fix_model(cancelling(bias))


def test_a_model_that_computes_in_16_bits_is_compared_in_32() -> None:
    """In float16 folding rounds otherwise than normalizing does, by thousandths."""
    image = keras.Input((8, 8, 3))
    x = image
    for _ in range(3):
        x = layers.Conv2D(16, 3, padding="same", dtype="mixed_float16")(x)
        x = layers.BatchNormalization(dtype="mixed_float16")(x)
        x = layers.ReLU(6.0, dtype="mixed_float16")(x)
    fixed = fix_model(keras.Model(image, layers.Conv2D(4, 1, dtype="mixed_float16")(x)))
    assert fixed.folded_norms == 3
    assert fixed.difference < 1e-5
    assert fixed.model.layers[-1].compute_dtype == "float16"


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_layers_that_keras_quantized_are_left_alone() -> None:
    """Their kernel is integers with a scale of its own, which takes no factor."""
    image = keras.Input((8,))
    x = layers.BatchNormalization()(layers.Dense(8, name="dense")(image))
    x = layers.Dense(4, name="last")(layers.Activation("hard_swish", name="swish")(x))
    built = keras.Model(image, x)
    built.layers[2].set_weights([np.full(8, 1.5 + i) for i in range(4)])
    built.quantize("int8")
    fixed = fix_model(built)
    assert (fixed.folded_norms, fixed.expanded) == (0, 1)
    assert "swish_sixth" in names(fixed.model)
    np.testing.assert_allclose(outputs(fixed.model), outputs(built), rtol=1e-4, atol=1e-4)


def test_new_layers_take_no_name_that_is_there() -> None:
    image = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 1, activation="hard_swish", name="act")(image)
    built = keras.Model(image, layers.Conv2D(4, 1, name="act_gate")(x))
    assert {"act_swish_gate", "act_gate"} <= names(expand_hard_swish(built))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_rewrite_that_computes_no_number_is_refused(monkeypatch: Any, wrong: float) -> None:
    """No difference to NaN is larger than another."""

    def rewritten(model: Any) -> Any:
        twin = keras.models.clone_model(model)
        twin.layers[1].set_weights([np.full((4, 4), wrong), np.zeros(4)])
        return twin

    monkeypatch.setattr(fix, "fold_batch_norms", rewritten)
    with pytest.raises(CheckFailedError, match="outputs differ by nan"):
        fix_model(cancelling(0.0))


def test_a_model_that_is_infinite_on_some_inputs_is_compared_where_it_is_not() -> None:
    """The exponential of 89 and more, and the logarithm of 0 and less."""
    image = keras.Input((4,))
    values = keras.Model(image, layers.BatchNormalization()(layers.Dense(4)(image)))(image)
    built = keras.Model(image, [keras.ops.exp(values), keras.ops.log(values)])
    assert fix_model(built).difference < 1e-3


def test_inputs_are_those_that_the_model_takes(recwarn: Any) -> None:
    """Numbers of words that a layer knows; a dictionary where it takes one."""
    words = keras.Input((6,), dtype="int32", name="words")
    x = layers.BatchNormalization()(layers.Dense(4)(layers.Embedding(2, 4)(words)))
    assert fix_model(keras.Model({"words": words}, x)).folded_norms == 1
    assert [
        str(one.message) for one in recwarn if "structure of `inputs`" in str(one.message)
    ] == []


def test_where_no_file_can_be_written(tmp_path: Path) -> None:
    """No traceback, and nothing left behind."""
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "file").touch()
    for out in ("folder.keras", "file/fixed.keras"):
        with pytest.raises(EdgeheadsError, match=rf"{out} cannot be written: "):
            save_fixed(block(), tmp_path / "model.keras", tmp_path / out)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder.keras"]
