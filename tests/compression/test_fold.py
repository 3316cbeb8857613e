"""Folding batch normalization computes the same with fewer layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from edgeheads.compression.fold import fold_batch_norms  # noqa: E402
from edgeheads.compression.graph import walk  # noqa: E402


def randomized(model: Any, seed: int = 0) -> Any:
    """Give every normalization statistics and scales of its own, far from the initial ones."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(0, 0.3, shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2.0, shape))
            if layer.scale:
                layer.gamma.assign(rng.uniform(0.7, 1.3, shape))
            if layer.center:
                layer.beta.assign(rng.normal(0, 0.2, shape))
    return model


def norms(model: Any) -> list[str]:
    return [
        layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]


def assert_same(one: Any, other: Any, shape: tuple[int, ...] = (8, 8, 3)) -> None:
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    expected = keras.tree.flatten(one(x, training=False))
    found = keras.tree.flatten(other(x, training=False))
    for a, b in zip(expected, found, strict=True):
        a, b = keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 * np.abs(a).max())


def chain(*layers: Any) -> Any:
    image = x = keras.Input((8, 8, 3))
    for layer in layers:
        x = layer(x)
    return randomized(keras.Model(image, x))


def test_a_folded_kernel_and_bias_by_hand() -> None:
    """gamma 3, beta 1, mean 2, var 3.75 + epsilon 0.25: factor 1.5, bias (5 - 2) 1.5 + 1 = 5.5."""
    image = keras.Input((1,))
    x = keras.layers.Dense(1, name="dense")(image)
    x = keras.layers.BatchNormalization(epsilon=0.25, name="norm")(x)
    model = keras.Model(image, x)
    model.get_layer("dense").set_weights([np.array([[4.0]]), np.array([5.0])])
    model.get_layer("norm").set_weights([np.array([v]) for v in (3.0, 1.0, 2.0, 3.75)])
    kernel, bias = fold_batch_norms(model).get_layer("dense").get_weights()
    assert kernel.tolist() == [[6.0]]
    assert bias.tolist() == [5.5]


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv2D(4, 3, use_bias=False),
        keras.layers.Conv2D(6, 3, groups=3, strides=2, padding="same"),
        keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        keras.layers.SeparableConv2D(5, 3, padding="same", depth_multiplier=2),
        keras.layers.Conv2DTranspose(4, 3, strides=2, padding="same", use_bias=False),
        keras.layers.Dense(4),
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}], ids=str)
def test_every_linear_layer_takes_up_the_norm_behind_it(layer: Any, options: dict) -> None:
    fresh = type(layer).from_config(layer.get_config())
    model = chain(fresh, keras.layers.BatchNormalization(**options), keras.layers.ReLU())
    folded = fold_batch_norms(model)
    assert norms(model) != []
    assert norms(folded) == []
    assert_same(model, folded)


def test_what_cannot_be_folded_stays() -> None:
    image = keras.Input((8, 8, 3))
    read_twice = keras.layers.Conv2D(3, 1, name="read_twice")(image)
    x = keras.layers.Add()([keras.layers.BatchNormalization(name="one")(read_twice), read_twice])
    x = keras.layers.BatchNormalization(name="after_add")(x)
    x = keras.layers.Conv2D(3, 1, activation="relu")(x)
    x = keras.layers.BatchNormalization(name="after_relu")(x)
    x = keras.layers.Conv2D(8, 1)(x)
    x = keras.layers.BatchNormalization(axis=1, name="over_rows")(x)
    output = keras.layers.Conv2D(3, 1)(x)
    after = keras.layers.BatchNormalization(name="after_output")(output)
    model = randomized(keras.Model(image, [output, after]))
    folded = fold_batch_norms(model)
    assert norms(folded) == ["one", "after_add", "after_relu", "over_rows", "after_output"]
    assert_same(model, folded)


def test_layers_that_levels_share_stay_shared() -> None:
    small, large = keras.Input((4, 4, 3)), keras.Input((8, 8, 3))
    conv, norm = keras.layers.Conv2D(4, 3, name="conv"), keras.layers.BatchNormalization()
    own = keras.layers.Conv2D(4, 3, name="own_norms")
    a, b = norm(conv(small)), norm(conv(large))
    c = keras.layers.BatchNormalization(name="c")(own(small))
    d = keras.layers.BatchNormalization(name="d")(own(large))
    model = randomized(keras.Model([small, large], [a, b, c, d]))
    folded = fold_batch_norms(model)
    assert norms(folded) == ["c", "d"]
    assert [layer.name for layer in folded.layers].count("conv") == 1
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(1, s, s, 3)).astype(np.float32) for s in (4, 8)]
    for expected, found in zip(model(x), folded(x), strict=True):
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=1e-5)


def test_a_model_inside_is_laid_open_and_the_original_unchanged() -> None:
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
    )
    model = chain(inner, keras.layers.ReLU())
    before = [weight.copy() for weight in model.get_weights()]
    folded = fold_batch_norms(model)
    assert [type(node.layer).__name__ for node in walk(folded).values()][1:] == ["Conv2D", "ReLU"]
    assert_same(model, folded)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "ResNet50", "Xception"]
)
def test_networks_of_keras_applications(name: str) -> None:
    network = getattr(keras.applications, name)
    model = randomized(network(input_shape=(96, 96, 3), weights=None, include_top=False))
    folded = fold_batch_norms(model)
    assert len(norms(model)) > 15
    assert norms(folded) == []
    assert_same(model, folded, (96, 96, 3))
