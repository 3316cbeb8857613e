"""Flat graphs, and copies of them with other layers in them."""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.graph import (  # noqa: E402
    calls,
    copy_layer,
    copy_once,
    flatten,
    rewrite,
    walk,
)
from edgeheads.errors import EdgeheadsError  # noqa: E402


def residual() -> object:
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv")(image)
    y = keras.layers.BatchNormalization(name="norm")(x)
    z = keras.layers.Add(name="add")([y, x])
    model = keras.Model(image, {"sum": z, "scaled": z * 2.0}, name="residual")
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in model.weights])
    return model


def images() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)


def test_walk_names_who_feeds_whom() -> None:
    nodes = walk(residual())
    assert list(nodes)[:4] == ["image", "conv", "norm", "add"]
    assert nodes["image"].inputs == ()
    assert nodes["conv"].consumers == ("norm", "add")
    assert nodes["add"].inputs == ("norm", "conv")
    assert nodes["add"].is_output
    assert not nodes["norm"].is_output
    assert len(nodes["add"].consumers) == 1  # the multiplication, which is no layer


def test_walk_repeats_an_input_that_is_taken_twice() -> None:
    image = keras.Input((8,), name="image")
    model = keras.Model(image, keras.layers.Add(name="double")([image, image]))
    nodes = walk(model)
    assert nodes["double"].inputs == ("image", "image")
    assert nodes["image"].consumers == ("double",)


def test_rewrite_copies_weights_and_structure_and_leaves_the_original_alone() -> None:
    model = residual()
    twin = rewrite(model, lambda layer, *args, **kwargs: copy_layer(layer)(*args, **kwargs))
    expected, found = model.predict(images(), verbose=0), twin.predict(images(), verbose=0)
    assert set(found) == {"sum", "scaled"}
    np.testing.assert_array_equal(found["scaled"], expected["scaled"])
    twin.get_layer("conv").set_weights([0 * w for w in twin.get_layer("conv").get_weights()])
    np.testing.assert_array_equal(model.predict(images(), verbose=0)["sum"], expected["sum"])


def test_rewrite_leaves_out_and_replaces() -> None:
    model = residual()

    def visit(layer: object, *args: object, **kwargs: object) -> object:
        if layer.name == "norm":
            return args[0]
        if layer.name == "conv":
            return copy_layer(layer, filters=6)(*args, **kwargs)
        return copy_layer(layer)(*args, **kwargs)

    twin = rewrite(model, visit)
    assert list(walk(twin))[:3] == ["image", "conv", "add"]
    assert twin.output["sum"].shape == (None, 8, 8, 6)


def test_flatten_lays_models_open_and_keeps_the_result() -> None:
    inner_image = keras.Input((8, 8, 3))
    inner = keras.Model(
        inner_image, keras.layers.Conv2D(4, 3, name="conv")(inner_image), name="backbone"
    )
    tail = keras.Sequential([keras.layers.ReLU(name="relu"), keras.layers.Conv2D(2, 1, name="c2")])
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(3, 1, name="conv")(image)
    model = keras.Model(image, tail(inner(x)), name="outer")
    with pytest.raises(EdgeheadsError, match=r"holds the model 'backbone' as one layer"):
        walk(model)
    flat = flatten(model)
    assert list(walk(flat)) == ["image", "conv", "backbone_conv", "relu", "c2"]
    np.testing.assert_allclose(
        flat.predict(images(), verbose=0), model.predict(images(), verbose=0), atol=1e-6
    )


def test_copies_normalize_as_adapted() -> None:
    norm = keras.layers.Normalization(name="norm")
    norm.adapt(images())
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, norm(image))
    expected = model.predict(images(), verbose=0)
    for twin in (flatten(model), rewrite(model, copy_once())):
        np.testing.assert_allclose(twin.predict(images(), verbose=0), expected, atol=1e-6)


def test_a_layer_without_weights_may_be_called_twice_one_with_weights_not() -> None:
    image = keras.Input((8, 8, 3))
    relu = keras.layers.ReLU(name="relu")
    x = relu(keras.layers.Conv2D(3, 1, name="conv")(relu(image)))
    assert sum("relu" in name for name in walk(flatten(keras.Model(image, x)))) == 2
    conv = keras.layers.Conv2D(3, 1, name="twice")
    shared = keras.Model(image, conv(conv(image)))
    for function in (walk, flatten):
        with pytest.raises(EdgeheadsError, match=r"layer 'twice' is called 2 times"):
            function(shared)


def test_a_subclassed_model_is_refused_with_the_way_out() -> None:
    class Own(keras.Model):
        pass

    with pytest.raises(EdgeheadsError, match=r"must be a functional Keras model, received Own;"):
        flatten(Own(name="own"))


def test_calls_tells_the_calls_of_a_shared_layer_apart() -> None:
    image = keras.Input((8, 8, 3), name="image")
    conv = keras.layers.Conv2D(3, 3, name="twice")
    found = list(calls(keras.Model(image, conv(conv(image)) + 1.0)))
    assert [call.layer.name for call in found[:3]] == ["image", "twice", "twice"]
    assert [call.outputs[0].shape for call in found[1:3]] == [(None, 6, 6, 3), (None, 4, 4, 3)]
    assert found[2].inputs[0] is found[1].outputs[0]
    assert found[3].args[1] == 1.0
