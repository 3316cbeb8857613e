from __future__ import annotations

import numpy as np
import pytest

from edgeheads.errors import EdgeheadsError

keras = pytest.importorskip("keras")

from edgeheads.backbones.yolo12 import VARIANTS, Variant, _area_attention, yolo12  # noqa: E402


def test_channels_of_variant_n() -> None:
    pyramid = yolo12((64, 64, 3), VARIANTS["yolo12_n"]).pyramid
    assert {name: (x.stride, x.channels) for name, x in pyramid.items()} == {
        "P3": (8, 128),
        "P4": (16, 128),
        "P5": (32, 256),
    }


def test_depth_repeats_blocks_and_width_does_not() -> None:
    def blocks(variant: Variant) -> int:
        layers = yolo12((32, 32, 3), variant).layers
        return sum(layer.name.endswith("_attention_softmax") for layer in layers)

    assert blocks(Variant(0.25, 0.25)) == 4
    assert blocks(Variant(0.125, 0.5)) == 8


def test_only_large_variants_have_a_scaled_residual() -> None:
    small, large = (
        {layer.name for layer in yolo12((32, 32, 3), variant).layers}
        for variant in (Variant(0.25, 0.25), Variant(0.25, 0.25, residual=True))
    )
    assert large - small == {"stage_4_scale", "stage_4_add", "stage_5_scale", "stage_5_add"}


@pytest.mark.parametrize("variant", [Variant(0, 1), Variant(1, -1)])
def test_multipliers_must_be_positive(variant: Variant) -> None:
    with pytest.raises(EdgeheadsError, match="must be positive, received"):
        yolo12((64, 64, 3), variant)


def test_an_area_attends_to_itself_only() -> None:
    """Whatever changes in the last quarter of the rows leaves the attention of the first alone."""
    image = keras.Input((8, 4, 32))
    y = _area_attention(image, 4, "x")
    model = keras.Model(image, y)
    # The 7x7 convolution of the values does reach over; its normalization takes it out here.
    model.get_layer("x_position_norm").gamma.assign(np.zeros(32, "float32"))
    x = np.random.default_rng(0).normal(size=(1, 8, 4, 32)).astype("float32")
    other = x.copy()
    other[:, 6:] += 1.0
    before, after = np.asarray(model(x)), np.asarray(model(other))
    np.testing.assert_allclose(before[:, :6], after[:, :6], atol=1e-6)
    assert np.abs(before[:, 6:] - after[:, 6:]).max() > 1e-3


def test_every_weight_gets_a_gradient() -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("needs tf.GradientTape")
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    model = yolo12((64, 64, 3), Variant(0.25, 0.25, residual=True))
    images = np.random.default_rng(0).random((2, 64, 64, 3), "float32")
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_mean(x**2) for x in model(images, training=True).values())
    variables = [variable.value for variable in model.trainable_variables]
    assert all(gradient is not None for gradient in tape.gradient(loss, variables))
