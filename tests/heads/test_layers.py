"""Attention, feed-forward and normalization: every kind, on its own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from head_cases import loss_and_gradients

from edgeheads.heads import create_vision_head
from edgeheads.heads.layers.attention import ATTENTION_TYPES, MAX_KEYS, attend
from edgeheads.heads.layers.ffn import FFN_TYPES
from edgeheads.heads.layers.norm import NORMALIZATIONS, normalize

_CHOICES = [
    *(("attention_type", kind) for kind in ATTENTION_TYPES),
    *(("ffn_type", kind) for kind in FFN_TYPES),
    *(("normalization_type", kind) for kind in NORMALIZATIONS),
]


@pytest.mark.parametrize("separable", [False, True], ids=["full", "separable"])
@pytest.mark.parametrize(("option", "kind"), _CHOICES)
def test_every_kind_trains_every_variable(option, kind, separable):
    keras.utils.set_random_seed(1)
    options = {"use_attention": True, "hidden_dim": 16, "ffn_expansion_factor": 2, option: kind}
    head = create_vision_head("depth", upsampling_factor=1, separable=separable, **options)
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 5)).astype("float32")
    head.build(x.shape)
    _, gradients = loss_and_gradients(head, x)
    for variable, gradient in zip(head.trainable_variables, gradients, strict=True):
        assert np.abs(gradient).max() > 0, variable.path


def _parts():
    made = {}

    def part(layer_class, name, **config):
        if name not in made:
            made[name] = layer_class(name=name, **config)
        return made[name]

    return part, made


_X = np.random.default_rng(2).normal(3, 5, size=(4, 3, 2, 8)).astype("float32")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("layer_norm", (_X - _X.mean(-1, keepdims=True)) / _X.std(-1, keepdims=True)),
        ("rms_norm", _X / np.sqrt((_X**2).mean(-1, keepdims=True))),
        ("zero_centered_rms_norm", _X / np.sqrt((_X**2).mean(-1, keepdims=True))),
    ],
)
def test_normalization_starts_as_its_definition(kind, expected):
    part, _ = _parts()
    received = keras.ops.convert_to_numpy(normalize(part, _X, kind, "norm"))
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-4)


def test_zero_centered_rms_norm_scales_by_one_plus_its_weight():
    part, made = _parts()
    before = keras.ops.convert_to_numpy(normalize(part, _X, "zero_centered_rms_norm", "norm"))
    assert not np.array(made["norm"].get_weights()[0]).any()
    made["norm"].set_weights([np.full((1, 1, 8, 1), 0.5, "float32")])
    after = keras.ops.convert_to_numpy(normalize(part, _X, "zero_centered_rms_norm", "norm"))
    np.testing.assert_allclose(after, 1.5 * before, rtol=1e-5)


def test_attention_on_a_large_map_pools_its_keys():
    part, made = _parts()
    x = np.zeros((1, 30, 40, 8), "float32")
    y = attend(part, x, "multi_head", "a", normalization="layer_norm", dropout=0.0)
    assert y.shape == x.shape
    keys = made["a_keys"].target_shape[0]
    assert 1200 > MAX_KEYS >= keys > MAX_KEYS / 4


def test_differential_attention_is_a_difference_of_two_softmaxes():
    keras.utils.set_random_seed(0)
    part, made = _parts()
    x = np.random.default_rng(1).normal(size=(1, 2, 3, 8)).astype("float32")
    y = attend(part, x, "differential", "a", normalization="rms_norm", dropout=0.0)
    weight = {name: layer.get_weights() for name, layer in made.items()}
    tokens = (x / np.sqrt((x**2).mean(-1, keepdims=True))).reshape(6, 8)

    def softmax(which):
        q, k = (tokens @ weight[f"a_{one}_{which}"][0] for one in ("query", "key"))
        scores = np.exp(q @ k.T / np.sqrt(8))
        return scores / scores.sum(-1, keepdims=True)

    values = tokens @ weight["a_value"][0] + weight["a_value"][1]
    mixed = (softmax(1) - 0.8 * softmax(2)) @ values
    mixed = 0.2 * mixed / np.sqrt((mixed**2).mean(-1, keepdims=True))
    kernel, bias = weight["a_output"]
    expected = x.reshape(6, 8) + mixed @ kernel[0, 0] + bias
    received = keras.ops.convert_to_numpy(y).reshape(6, 8)
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-4)
