"""Operations and parameters, counted by hand."""

from __future__ import annotations

import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.macs import count_macs, count_parameters  # noqa: E402
from edgeheads.errors import EdgeheadsError  # noqa: E402


def test_macs_and_parameters_by_hand() -> None:
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(image)  # 4*4 * 3*3*3*4 = 1728
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)  # 4*4 * 3*3*4 = 576
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dense(10)(x)  # 4*10 = 40
    model = keras.Model(image, x)
    assert count_macs(model) == 1728 + 576 + 40
    assert count_parameters(model) == (108 + 4) + (36 + 4) + 16 + (40 + 10)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        # a group of 2 channels in front of every kernel
        (keras.layers.Conv2D(8, 3, groups=4), 4 * 4 * 3 * 3 * 2 * 8),
        # every one of 6*6 input positions meets the whole kernel
        (keras.layers.Conv2DTranspose(5, 2, strides=2), 6 * 6 * 2 * 2 * 8 * 5),
        (keras.layers.SeparableConv2D(5, 3), 4 * 4 * (3 * 3 * 8 + 8 * 5)),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), 4 * 4 * 3 * 3 * 8 * 2),
        (keras.layers.Dense(7), 6 * 6 * 8 * 7),
    ],
    ids=lambda one: getattr(one, "name", None),
)
def test_macs_of_each_kind(layer: object, expected: int) -> None:
    image = keras.Input((6, 6, 8))
    assert count_macs(keras.Model(image, layer(image))) == expected


def test_shared_convolution_works_once_per_level() -> None:
    shared = keras.layers.Conv2D(2, 1)
    fine, coarse = keras.Input((4, 4, 3)), keras.Input((2, 2, 3))
    model = keras.Model([fine, coarse], [shared(fine), shared(coarse)])
    assert count_macs(model) == (16 + 4) * 3 * 2


def test_calls_outside_the_model_do_not_count_and_models_inside_do() -> None:
    image = keras.Input((4, 4, 3))
    conv = keras.layers.Conv2D(2, 1)
    inner = keras.Model(image, conv(image))
    conv(keras.Input((8, 8, 3)))
    assert count_macs(inner) == 16 * 3 * 2
    outer = keras.Input((4, 4, 3))
    assert count_macs(keras.Model(outer, inner(outer))) == 16 * 3 * 2


def test_an_unknown_size_is_an_error() -> None:
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 1, name="conv")(image))
    with pytest.raises(EdgeheadsError, match=r"'conv' works on \(None, None\) positions"):
        count_macs(model)
