"""Models of 16-bit layers in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.quantize.float_twin import in_float32  # noqa: E402
from edgeheads.export.tflite import convert_to_float_tflite  # noqa: E402

L = keras.layers


def network(policy: str) -> Any:
    """A model inside a model, a layer that is called twice, and numbers made of weights."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    normalized = L.Normalization(name="scaled", dtype=policy)
    normalized.adapt(np.random.default_rng(0).normal(5, 3, (4, 8, 8, 3)).astype(np.float32))
    inner = keras.Model(image, L.Conv2D(4, 3, dtype=policy)(normalized(image)), name="inner")
    outside, shared = keras.Input((8, 8, 3)), L.Conv2D(2, 1, name="shared", dtype=policy)
    x = inner(outside)
    return keras.Model(outside, L.Add(dtype=policy)([shared(x), shared(x)]))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_a_copy_computes_the_same_in_float32_and_converts(policy: str) -> None:
    model = network(policy)
    twin = in_float32(model)
    image = np.random.default_rng(1).normal(5, 3, (2, 8, 8, 3)).astype(np.float32)
    expected = np.asarray(model.predict(image, verbose=0), np.float32)
    found = twin.predict(image, verbose=0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    assert {layer.compute_dtype for layer in twin._flatten_layers()} == {"float32"}
    assert convert_to_float_tflite(twin.inputs[0], {"output": twin.outputs[0]})


def test_a_model_in_float32_is_not_copied() -> None:
    model = network("float32")
    assert in_float32(model) is model
