"""The table of schemes, and that each makes a file that runs and is close to the float model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgeheads.compression.quantize.schemes import SCHEMES, get_scheme
from edgeheads.errors import EdgeheadsError

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
pytest.importorskip("ai_edge_litert")

from ai_edge_litert.interpreter import Interpreter  # noqa: E402

from edgeheads.export.tflite import convert_to_tflite  # noqa: E402


def _images() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(8):
        yield rng.random((1, 8, 8, 3), np.float32)


@pytest.fixture(scope="module")
def graph() -> tuple[Any, dict[str, Any]]:
    """Maps and a vector, so that convolutions and a fully connected layer are both quantized."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 3, padding="same", use_bias=False)(image)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization()(x))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu6")(x)
    vector = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))
    return image, {"map": keras.layers.Conv2D(2, 1)(x), "vector": vector}


@pytest.fixture(scope="module")
def expected(graph: tuple[Any, dict[str, Any]]) -> dict[str, np.ndarray]:
    images = np.concatenate(list(_images()))
    outputs: dict[str, np.ndarray] = keras.Model(*graph).predict(images, verbose=0)
    return outputs


# scheme -> dtype of inputs and outputs, least SQNR of the outputs in dB.
_EXPECTED = {
    "float32": ("float32", 120),
    "float16": ("float32", 60),
    "dynamic": ("float32", 30),
    "int8": ("int8", 27),
    "int8-uint8-io": ("uint8", 27),
    "int8-float-io": ("float32", 27),
    "int16x8": ("int16", 35),
}


_CASES = [
    (name, per_channel)
    for name, scheme in SCHEMES.items()
    for per_channel in ((True, False) if scheme.calibrated else (True,))
]


@pytest.mark.parametrize(("name", "per_channel"), _CASES)
def test_every_scheme_converts_and_runs(
    name: str, per_channel: bool, graph: tuple[Any, dict[str, Any]], expected: dict[str, np.ndarray]
) -> None:
    dtype, least = _EXPECTED[name]
    content = convert_to_tflite(*graph, name, _images, per_channel=per_channel)
    runner = Interpreter(model_content=content).get_signature_runner()
    [image] = runner.get_input_details().values()
    assert np.dtype(image["dtype"]) == dtype
    found = [runner(image=_stored(image, one)) for one in _images()]
    for output, fact in runner.get_output_details().items():
        assert np.dtype(fact["dtype"]) == dtype
        scale, zero = fact["quantization"] if fact["quantization"][0] else (1.0, 0)
        real = (np.concatenate([one[output] for one in found]).astype(np.float64) - zero) * scale
        noise = np.square(real - expected[output]).sum()
        # One scale for all channels costs a few dB.
        least_ratio = 10 ** ((least - (0 if per_channel else 6)) / 10)
        assert np.square(expected[output]).sum() >= noise * least_ratio


def _stored(fact: dict[str, Any], real: np.ndarray) -> np.ndarray:
    scale, zero = fact["quantization"]
    if not scale:
        return real
    limits = np.iinfo(fact["dtype"])
    return (np.round(real / scale) + zero).clip(limits.min, limits.max).astype(fact["dtype"])


def test_schemes_say_what_they_store() -> None:
    """The fields that the converter, the verifier and the documentation read."""
    for scheme in SCHEMES.values():
        assert scheme.calibrated == scheme.name.startswith("int")
    assert get_scheme("int16x8").activations == "int16"
    assert get_scheme("dynamic").weights == "int8"
    assert not get_scheme("dynamic").calibrated
    assert get_scheme("int8-uint8-io").computes == "int8"
    assert get_scheme("int16x8").computes == "int16x8"


def test_unknown_scheme() -> None:
    with pytest.raises(EdgeheadsError, match="unknown quantization scheme 'int16'; did you mean"):
        get_scheme("int16")
    with pytest.raises(
        EdgeheadsError, match=r"unknown quantization scheme 'bfloat'; did you mean float"
    ):
        get_scheme("bfloat")


def test_recipes_take_every_scheme_and_no_other() -> None:
    from edgeheads.recipe import load_recipe

    recipe = load_recipe("depth-mobilenet_v2_0.35-128")
    every = recipe.with_values(**{"export.precisions": list(SCHEMES)})
    assert every.export.precisions == tuple(SCHEMES)
    with pytest.raises(EdgeheadsError, match=r"export.precisions.0: unknown .* did you mean int8"):
        recipe.with_values(**{"export.precisions": ["int8-unit8-io"]})
