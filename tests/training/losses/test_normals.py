"""The cosine loss of surface normals, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from edgeheads.training.losses.normals import CosineNormalsLoss, normals_loss  # noqa: E402


def row(*normals: tuple[float, float, float]) -> np.ndarray:
    return np.array(normals, np.float32).reshape(1, 1, -1, 3)


def turned(degrees: float) -> tuple[float, float, float]:
    return math.sin(math.radians(degrees)), 0.0, -math.cos(math.radians(degrees))


@pytest.mark.parametrize(("degrees", "cost"), [(0, 0), (60, 0.5), (90, 1), (180, 2)])
def test_cost_is_one_minus_the_cosine(degrees: float, cost: float) -> None:
    assert float(normals_loss(row(turned(0)), row(turned(degrees)))) == pytest.approx(
        cost, abs=1e-6
    )


def test_pixels_without_a_normal_count_for_nothing() -> None:
    target = row(turned(0), (0, 0, 0), turned(0))
    value = normals_loss(target, row(turned(60), turned(180), turned(0)))
    assert float(value) == pytest.approx(0.25, abs=1e-6)
    assert float(normals_loss(row((0, 0, 0)), row(turned(60)))) == 0


def test_normal_with_a_zero_component_is_a_normal() -> None:
    assert float(normals_loss(row((1, 0, 0)), row((-1, 0, 0)))) == pytest.approx(2)


def test_keras_loss_is_the_function_and_survives_saving() -> None:
    again = keras.losses.deserialize(keras.losses.serialize(CosineNormalsLoss()))
    assert isinstance(again, CosineNormalsLoss)
    assert float(again(row(turned(0)), row(turned(60)))) == pytest.approx(0.5, abs=1e-6)
