"""Following channels: what goes together, what stays; removing what is zero changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.macs import count_macs, count_parameters  # noqa: E402
from edgeheads.compression.prune.channels import Channels  # noqa: E402
from edgeheads.compression.prune.surgery import remove_channels  # noqa: E402

L = keras.layers
RNG = np.random.default_rng(0)


def randomized(model: Any) -> Any:
    model.set_weights([RNG.uniform(0.3, 1.2, weight.shape) for weight in model.weights])
    return model


def zero_out(channels: Channels, removed: np.ndarray) -> None:
    """Make removed channels zero by hand, wherever they are made, scaled or shifted."""
    for slot in channels.slots:
        layer = channels.model.get_layer(slot.layer)
        weights = layer.get_weights()
        name = layer.weights[slot.weight].name
        if slot.makes or name in ("bias", "gamma", "beta", "moving_mean"):
            index = [slice(None)] * weights[slot.weight].ndim
            index[slot.axis] = ~channels.kept(slot, removed)
            weights[slot.weight][tuple(index)] = 0
            layer.set_weights(weights)


def check_exact(model: Any, atol: float = 1e-5) -> tuple[Channels, Any]:
    """Remove every other unit after zeroing it; the outputs must not change."""
    channels = Channels.follow(randomized(model))
    removed = np.zeros(channels.count, bool)
    for group in channels.groups:
        removed[group.units[: len(group.units) // 2]] = True
    assert removed.any()
    zero_out(channels, removed)
    image = RNG.normal(size=(2, *model.inputs[0].shape[1:])).astype(np.float32)
    expected = keras.tree.flatten(model.predict(image, verbose=0))
    smaller = remove_channels(channels, removed)
    found = keras.tree.flatten(smaller.predict(image, verbose=0))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=atol * max(1.0, np.abs(a).max()))
    assert count_macs(smaller) == channels.macs(removed) < count_macs(model)
    assert count_parameters(smaller) == channels.parameters(removed) < count_parameters(model)
    return channels, smaller


def conv(x: Any, filters: int, name: str, size: int = 1, **options: Any) -> Any:
    return L.Conv2D(filters, size, padding="same", name=name, **options)(x)


def test_a_chain_is_cut_by_hand() -> None:
    image = keras.Input((4, 4, 2))
    x = L.ReLU()(L.BatchNormalization(name="norm")(conv(image, 3, "a")))
    model = randomized(keras.Model(image, conv(x, 2, "b")))
    channels = Channels.follow(model)
    [group] = channels.groups
    assert (group.layers, len(group.units), group.width) == (("a",), 3, 1)
    smaller = remove_channels(channels, np.array([False, True, False]))
    old, new = model.get_layer("a"), smaller.get_layer("a")
    np.testing.assert_array_equal(new.kernel, np.array(old.kernel)[..., [0, 2]])
    np.testing.assert_array_equal(new.bias, np.array(old.bias)[[0, 2]])
    np.testing.assert_array_equal(
        smaller.get_layer("norm").moving_variance,
        np.array(model.get_layer("norm").moving_variance)[[0, 2]],
    )
    np.testing.assert_array_equal(
        smaller.get_layer("b").kernel, np.array(model.get_layer("b").kernel)[:, :, [0, 2]]
    )
    assert smaller.output.shape == (None, 4, 4, 2)


def test_a_residual_sum_ties_its_branches() -> None:
    image = keras.Input((4, 4, 3))
    stem = conv(image, 8, "stem")
    branch = conv(L.ReLU()(conv(stem, 12, "expand")), 8, "contract")
    channels, smaller = check_exact(keras.Model(image, conv(L.Add()([stem, branch]), 2, "out")))
    assert [group.layers for group in channels.groups] == [("stem", "contract"), ("expand",)]
    assert smaller.get_layer("stem").filters == smaller.get_layer("contract").filters == 4
    assert smaller.get_layer("expand").filters == 6


def test_depthwise_follows_and_multiplies() -> None:
    image = keras.Input((6, 6, 3))
    x = L.DepthwiseConv2D(3, depth_multiplier=2, name="depth")(conv(image, 4, "a"))
    channels, smaller = check_exact(keras.Model(image, conv(L.BatchNormalization()(x), 2, "out")))
    assert channels.groups[0].layers == ("a", "depth")
    assert smaller.get_layer("depth").kernel.shape == (3, 3, 2, 2)
    assert smaller.get_layer("out").kernel.shape[2] == 4


def test_concatenation_keeps_offsets() -> None:
    image = keras.Input((4, 4, 3))
    parts = [conv(image, n, name) for n, name in ((4, "a"), (6, "b"))]
    model = keras.Model(image, conv(L.Concatenate()([*parts, image]), 2, "out"))
    _, smaller = check_exact(model)
    assert smaller.get_layer("out").kernel.shape[2] == 2 + 3 + 3
    kernel = np.array(model.get_layer("out").kernel)
    np.testing.assert_array_equal(
        smaller.get_layer("out").kernel, kernel[:, :, [2, 3, 7, 8, 9, 10, 11, 12]]
    )


def test_concatenation_along_positions_ties_channels() -> None:
    image = keras.Input((4, 4, 3))
    x = L.Concatenate(axis=1)([conv(image, 4, "a"), conv(image, 4, "b")])
    channels, _ = check_exact(keras.Model(image, conv(x, 2, "out")))
    assert channels.groups[0].layers == ("a", "b")


def test_flatten_and_reshape_repeat_channels() -> None:
    image = keras.Input((4, 4, 3))
    flat = L.Dense(6, name="hidden")(L.Flatten()(conv(image, 4, "a", 3)))
    tokens = L.Reshape((16, 4), name="tokens")(conv(image, 4, "b"))
    both = L.Concatenate()([flat, L.GlobalAveragePooling1D()(tokens)])
    _, smaller = check_exact(keras.Model(image, L.Dense(2, name="out")(both)))
    assert smaller.get_layer("hidden").kernel.shape == (32, 3)
    assert smaller.get_layer("tokens").target_shape == (16, 2)
    assert smaller.get_layer("out").kernel.shape == (5, 2)


def test_squeeze_and_excite() -> None:
    image = keras.Input((4, 4, 3))
    x = L.ReLU()(conv(image, 8, "a"))
    gate = L.Reshape((1, 1, 8), name="map")(L.GlobalAveragePooling2D()(x))
    gate = conv(conv(gate, 4, "squeeze", activation="relu"), 8, "excite")
    gate = L.ReLU(6.0)(gate + 3.0) * (1.0 / 6.0)
    channels, smaller = check_exact(keras.Model(image, conv(L.Multiply()([x, gate]), 2, "out")))
    assert [group.layers for group in channels.groups] == [("a", "excite"), ("squeeze",)]
    assert smaller.get_layer("map").target_shape == (1, 1, 4)


def test_grouped_convolution_loses_whole_groups() -> None:
    image = keras.Input((4, 4, 3))
    x = conv(conv(image, 8, "a"), 16, "grouped", 3, groups=4)
    channels, smaller = check_exact(keras.Model(image, conv(x, 2, "out")))
    [group] = channels.groups
    assert (len(group.units), group.width) == (4, 2)
    assert smaller.get_layer("grouped").groups == 2
    assert smaller.get_layer("grouped").kernel.shape == (3, 3, 2, 8)


def test_transposed_separable_prelu_resize() -> None:
    image = keras.Input((4, 4, 3))
    x = L.Conv2DTranspose(6, 2, strides=2, name="up")(conv(image, 4, "a"))
    x = L.SeparableConv2D(8, 3, depth_multiplier=2, name="separable")(L.PReLU()(x))
    x = L.UpSampling2D(2)(L.PReLU(shared_axes=[1, 2])(L.ZeroPadding2D(1)(x)))
    channels, smaller = check_exact(keras.Model(image, conv(L.MaxPooling2D(2)(x), 2, "out")))
    assert len(channels.groups) == 3
    assert smaller.get_layer("separable").pointwise_kernel.shape == (1, 1, 6, 4)


def test_a_layer_shared_by_levels_stays_shared() -> None:
    image = keras.Input((8, 8, 3))
    fine = conv(image, 4, "fine")
    coarse = conv(L.AveragePooling2D(2)(image), 4, "coarse")
    tower, out = L.Conv2D(6, 1, name="tower"), L.Conv2D(2, 1, name="out")
    model = keras.Model(image, [out(tower(fine)), out(tower(coarse))])
    channels, smaller = check_exact(model)
    assert set(channels.groups[0].layers) == {"fine", "coarse"}
    assert smaller.get_layer("tower").kernel.shape == (1, 1, 2, 3)
    assert len(smaller.layers) == len(model.layers)


@keras.saving.register_keras_serializable("tests")
class Twice(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return 2 * x


def test_what_cannot_be_followed_stays_and_says_why() -> None:
    image = keras.Input((4, 4, 4))
    own = Twice(name="own")(conv(image, 4, "a"))
    normed = L.LayerNormalization(name="ln")(conv(own, 4, "b"))
    split = L.Reshape((16, 2, 2), name="split")(conv(normed, 4, "c"))
    mean = keras.ops.mean(conv(image, 4, "d"), axis=-1, keepdims=True)
    scaled = conv(image, 4, "e") * np.arange(1, 5, dtype="float32")
    shifted = conv(image, 4, "k") + keras.ops.arange(4, dtype="float32")
    mixed = conv(image, 4, "f", activation="softmax")
    half = conv(image, 4, "j", activation="glu")
    quarter = L.Activation("glu", name="glu")(half)
    ends = [split, mean, conv(image, 4, "i")]
    outputs = [*ends, *(conv(x, 2, f"o{i}") for i, x in enumerate((scaled, shifted, mixed, half)))]
    outputs.append(conv(quarter, 2, "last"))
    channels = Channels.follow(keras.Model(image, outputs))
    assert channels.groups == []
    assert channels.protected["own"] == "Twice is not followed"
    assert channels.protected["ln"] == "LayerNormalization is not followed"
    assert channels.protected["split"] == "it divides channels"
    assert {channels.protected[name] for name in ("f", "j", "glu")} == {
        "its activation mixes channels"
    }
    assert {"multiply", "add"} <= {name.partition("_")[0] for name in channels.protected}
    assert channels.parameters(channels.none) == count_parameters(channels.model)
    assert count_macs(remove_channels(channels, channels.none)) == count_macs(channels.model)
    assert "mixes channels" in channels.protected.values()
    assert "it holds constants that are no single number" in channels.protected.values()


def test_an_inner_layer_is_protected_on_demand() -> None:
    image = keras.Input((4, 4, 4))
    model = keras.Model(image, conv(L.ReLU(name="kept")(conv(image, 4, "a")), 2, "out"))
    assert len(Channels.follow(model).groups) == 1
    assert Channels.follow(model, protect=["kept"]).groups == []


def test_a_custom_layer_in_the_middle_survives() -> None:
    image = keras.Input((4, 4, 3))
    x = Twice(name="own")(conv(conv(image, 8, "a"), 4, "b"))
    _, smaller = check_exact(keras.Model(image, conv(conv(x, 6, "c"), 2, "out")))
    assert isinstance(smaller.get_layer("own"), Twice)
    assert smaller.get_layer("b").filters == 4
    assert smaller.get_layer("c").filters == 3
