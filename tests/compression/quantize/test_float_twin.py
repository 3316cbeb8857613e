"""Models of 16-bit layers in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import tiny_recipe
from edgeheads.data.sample import LabelNames
from edgeheads.tasks import get_task

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.quantize.float_twin import in_float32  # noqa: E402
from edgeheads.edge_model import build, load  # noqa: E402
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
    both = L.Add(dtype=policy)([shared(x), shared(x)])
    # Two operations that are no layers, one of which names a dtype.
    half = keras.ops.cast(both, L.Activation("linear", dtype=policy).compute_dtype)
    return keras.Model(outside, keras.ops.maximum(half, 0.5))


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


def test_a_model_beside_a_recipe_is_loaded_in_float32(tmp_path: Path) -> None:
    """Its outputs are found by the names of their layers, which the copy keeps."""
    recipe = tiny_recipe()
    task, names = get_task(recipe.task, recipe.head.options), LabelNames()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = build(recipe, task, names)
    finally:
        keras.config.set_dtype_policy(before)
    half.model.save(tmp_path / "half.keras")
    edge = load(tmp_path / "half.keras", recipe, task, names)
    assert {tensor.dtype for tensor in edge.outputs.values()} == {"float32"}
    images = list(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8))
    found = edge.predict(images)
    for name, values in half.predict(images).items():
        np.testing.assert_allclose(found[name], values.astype(np.float32), atol=0.02)
