"""Contracts: real values to stored ones and back, by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgeheads.contract import Contract, ImageInput, TensorSpec
from edgeheads.errors import EdgeheadsError

INT8 = TensorSpec("image", (1, 2, 1, 3), "int8", 0.5, -3)
FLOAT = TensorSpec("image", (1, 2, 1, 3), "float32")


def test_quantize_rounds_shifts_and_saturates() -> None:
    real = np.array([0.0, 0.24, 0.26, -1.0, 1000.0, -1000.0], np.float32)
    assert INT8.quantize(real).tolist() == [-3, -3, -2, -5, 127, -128]
    assert INT8.quantize(real).dtype == np.int8


def test_dequantize_is_exact() -> None:
    stored = np.array([-3, -2, 127, -128], np.int8)
    assert INT8.dequantize(stored).tolist() == [0.0, 0.5, 65.0, -62.5]


def test_float_tensors_pass_through() -> None:
    real = np.array([0.1, -7.0], np.float32)
    assert FLOAT.quantize(real).tolist() == real.tolist()
    assert FLOAT.dequantize(real).tolist() == real.tolist()


def test_image_is_scaled_per_channel_then_quantized() -> None:
    image_input = ImageInput(INT8, (0.1, 0.01, 1.0), (0.0, 1.0, -2.0))
    image = np.array([[[10, 100, 2]], [[0, 0, 255]]], np.uint8)
    # real: 1, 2, 0 and 0, 1, 253
    assert image_input.prepare(image).tolist() == [[[[-1, 1, -3]], [[-3, -1, 127]]]]


def test_image_of_another_size_is_refused() -> None:
    image_input = ImageInput(INT8, (1, 1, 1), (0, 0, 0))
    with pytest.raises(EdgeheadsError, match=r"shape \(2, 1, 3\), received \(2, 2, 3\)"):
        image_input.prepare(np.zeros((2, 2, 3), np.uint8))


def test_json_round_trip() -> None:
    contract = Contract(
        ImageInput(INT8, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0)),
        (TensorSpec("a", (1, 4), "int8", 0.25, 7), TensorSpec("b", (1, 2, 2), "float32")),
        {"encoding": "log", "min_depth": 0.5},
        ("cat", "dog"),
    )
    assert Contract.from_json(json.loads(json.dumps(contract.to_json()))) == contract


def test_outputs_are_dequantized_by_their_own_spec() -> None:
    contract = Contract(
        ImageInput(INT8, (1, 1, 1), (0, 0, 0)),
        (TensorSpec("a", (1, 1), "int8", 0.25, 7), TensorSpec("b", (1, 1), "int8", 2.0, 0)),
        {},
    )
    real = contract.dequantize({"a": np.array([[9]], np.int8), "b": np.array([[9]], np.int8)})
    assert {name: array.tolist() for name, array in real.items()} == {"a": [[0.5]], "b": [[18.0]]}
