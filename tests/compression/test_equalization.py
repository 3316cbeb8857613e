"""Cross-layer equalization, worked by hand, and left undone where it would change the function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.equalization import channel_ranges, equalize  # noqa: E402

layers = keras.layers


def network(*stack: Any, width: int = 2) -> Any:
    image = keras.Input((6, 6, width))
    x = image
    for layer in stack:
        x = layer(x)
    return keras.Model(image, x)


def uneven(seed: int = 0) -> Any:
    """A convolution, a depthwise and a pointwise one with channels of very unlike ranges."""
    built = network(
        layers.Conv2D(8, 3, activation="relu", name="a"),
        layers.ZeroPadding2D(),
        layers.DepthwiseConv2D(3, name="b"),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(4, name="c"),
    )
    rng = np.random.default_rng(seed)
    for name in "abc":
        kernel, bias = built.get_layer(name).get_weights()
        kernel = rng.normal(size=kernel.shape)
        if name != "c":
            kernel *= np.logspace(-2, 2, 8).reshape((1, 1, 1, 8) if name == "a" else (1, 1, 8, 1))
        built.get_layer(name).set_weights([kernel, rng.normal(size=bias.shape)])
    return built


def outputs(model: Any) -> Any:
    x = np.random.default_rng(1).normal(size=(4, *model.input.shape[1:])).astype(np.float32)
    return np.asarray(model(x, training=False))


def test_two_layers_by_hand() -> None:
    """Ranges 4 and 1 before, 1 and 9 behind: both become sqrt(4*1) = 2 and sqrt(1*9) = 3."""
    built = network(layers.Conv2D(2, 1, activation="relu", name="a"), layers.Conv2D(1, 1, name="b"))
    built.get_layer("a").set_weights([np.diag([4.0, -1.0])[None, None], np.array([8.0, 5.0])])
    built.get_layer("b").set_weights([np.array([1.0, 9.0]).reshape(1, 1, 2, 1), np.zeros(1)])
    found = equalize(built)
    kernel, bias = found.model.get_layer("a").get_weights()
    np.testing.assert_allclose(kernel[0, 0], np.diag([2.0, -3.0]), rtol=1e-6)
    np.testing.assert_allclose(bias, [4.0, 15.0], rtol=1e-6)
    behind = found.model.get_layer("b").get_weights()[0]
    np.testing.assert_allclose(behind.ravel(), [2.0, 3.0], rtol=1e-6)
    assert found.chains == (("a", "b"),)
    # Medians of {4, 1} and {1.5, 1}: b has a single output channel.
    assert (found.spread_before, found.spread_after) == pytest.approx((2.5, 1.25))


def test_a_chain_keeps_its_function() -> None:
    """Through padding, depthwise convolution and pooling; the given model keeps its weights."""
    built = uneven()
    before, expected = [np.copy(one) for one in built.get_weights()], outputs(built)
    found = equalize(built)
    assert found.chains == (("a", "b", "c"),)
    np.testing.assert_allclose(outputs(found.model), expected, rtol=1e-4, atol=1e-3)
    for old, new in zip(before, built.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert found.spread_before > 1000
    assert found.spread_after < found.spread_before / 20


def test_a_dead_channel_stays_dead() -> None:
    """A kernel of zeros gives no infinite factor."""
    built = uneven()
    kernel, bias = built.get_layer("a").get_weights()
    kernel[..., 3] = 0
    built.get_layer("a").set_weights([kernel, bias])
    found = equalize(built)
    assert all(np.isfinite(one).all() for one in found.model.get_weights())
    np.testing.assert_allclose(outputs(found.model), outputs(built), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "between",
    [
        lambda: layers.ReLU(6.0),
        lambda: layers.Activation("sigmoid"),
        lambda: layers.LeakyReLU(),
        lambda: layers.BatchNormalization(),
    ],
)
def test_what_clips_or_bends_ends_a_chain(between: Any) -> None:
    """There a factor would change the function."""
    built = network(layers.Conv2D(4, 1), between(), layers.Conv2D(4, 1))
    assert equalize(built).chains == ()


@pytest.mark.parametrize("behind", [True, False])
def test_images_tell_of_a_relu6_right_behind_a_layer(behind: bool) -> None:
    """One behind a padding is not looked at, and ends the chain."""
    between = [layers.ReLU(6.0), layers.ZeroPadding2D()][:: 1 if behind else -1]
    built = network(layers.Conv2D(4, 1, name="a"), *between, layers.Conv2D(4, 1, name="b"))
    ones = [np.ones((1, 6, 6, 2), np.float32)]
    found = equalize(built, images=lambda: ones)
    assert found.chains == ((("a", "b"),) if behind else ())


def test_a_layer_with_two_readers_is_left_alone() -> None:
    """The other reader would see scaled values; so would the model's output."""
    image = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 1)(image)
    y = layers.Conv2D(4, 1)(x)
    assert equalize(keras.Model(image, layers.Add()([x, y]))).chains == ()
    assert equalize(keras.Model(image, [x, y])).chains == ()


def test_a_shared_layer_is_left_alone() -> None:
    """It would be scaled for one of its places only."""
    image = keras.Input((6, 6, 4))
    shared = layers.Conv2D(4, 1)
    x = layers.Conv2D(4, 1)(image)
    built = keras.Model(image, [shared(x), shared(image)])
    assert equalize(built).chains == ()


@pytest.mark.parametrize("gain", [1.0, 30.0])
@pytest.mark.parametrize(("bias", "factor"), [(0.0, 10.0), (0.49, 2.0), (0.99, 1.0)])
def test_images_bound_what_a_bias_would_become(gain: float, bias: float, factor: float) -> None:
    """The small kernel grows sqrt(1 / 0.01) = 10 times, unless 0.01 + bias becomes more than 1.

    A gain of the whole layer, undone by the next, changes none of this.
    """
    built = network(layers.Conv2D(2, 1, activation="relu", name="a"), layers.Conv2D(1, 1, name="b"))
    kernel, biases = np.diag([1.0, 0.01])[None, None], np.array([0.0, bias])
    built.get_layer("a").set_weights([gain * kernel, gain * biases])
    built.get_layer("b").set_weights([np.full((1, 1, 2, 1), 1 / gain), np.zeros(1)])
    ones = [np.ones((1, 6, 6, 2), np.float32)]
    found = equalize(built, images=lambda: ones)
    scaled = found.model.get_layer("a").get_weights()[0][0, 0] / gain
    np.testing.assert_allclose(scaled, np.diag([1.0, 0.01 * factor]), rtol=1e-5)


def test_channel_ranges_of_each_kind() -> None:
    """[h, w, in, out], depthwise [h, w, in, 1], transposed [h, w, out, in], dense [in, out]."""
    kernels = {
        layers.Conv2D(3, 1): (1, 1, 2, 3),
        layers.DepthwiseConv2D(1): (1, 1, 2, 1),
        layers.Conv2DTranspose(3, 1): (1, 1, 3, 2),
        layers.Dense(3): (2, 3),
    }
    found = []
    for layer, shape in kernels.items():
        layer.build((None, 4, 4, 2) if len(shape) == 4 else (None, 2))
        kernel = -np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
        layer.set_weights([kernel, *layer.get_weights()[1:]])
        found.append(channel_ranges(layer).tolist())
    assert found == [[4, 5, 6], [1, 2], [2, 4, 6], [4, 5, 6]]
    assert channel_ranges(layers.ReLU()) is None
