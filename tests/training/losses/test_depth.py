"""Losses, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from edgeheads.training.losses.depth import BEST_LOG_ERROR, depth_loss  # noqa: E402


def loss(target: np.ndarray, depth: np.ndarray, confidence: np.ndarray | None = None) -> float:
    def batch(values: np.ndarray) -> np.ndarray:
        return np.asarray(values, np.float32).reshape(1, *np.shape(values), 1)

    code = None if confidence is None else batch(confidence)
    return float(depth_loss(batch(target), batch(depth), code))


def test_perfect_depth_costs_nothing() -> None:
    assert loss(np.full((4, 4), 3.0), np.full((4, 4), 3.0)) == pytest.approx(0, abs=1e-6)


def test_constant_ratio_costs_its_logarithm_and_no_gradient() -> None:
    target = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    assert loss(target, target * 1.5) == pytest.approx(math.log(1.5), rel=1e-5)


def test_gradient_term_by_hand() -> None:
    """One row, log errors 0 and 1: the mean is 1/2; at scale 1 the one step costs 1; the three
    coarser scales see a single pixel. 1/2 + 0.5 * (1 / 4) = 0.625."""
    assert loss(np.array([[1.0, 1.0]]), np.array([[1.0, math.e]])) == pytest.approx(0.625)


def test_pixels_without_reading_have_neither_loss_nor_gradient() -> None:
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("reads the gradient with tf.GradientTape")
    target = tf.constant([[[[2.0], [0.0]], [[2.0], [0.0]]]])
    depth = tf.Variable([[[[3.0], [5.0]], [[3.0], [7.0]]]])
    with tf.GradientTape() as tape:
        value = depth_loss(target, depth, tf.fill((1, 2, 2, 1), 0.5))
    gradient = tape.gradient(value, depth).numpy()[0, ..., 0]
    assert np.isfinite(gradient).all()
    assert (gradient[:, 1] == 0).all()
    assert (gradient[:, 0] > 0).all()


def test_image_without_a_reading_costs_nothing() -> None:
    assert loss(np.zeros((4, 4)), np.full((4, 4), 3.0), np.full((4, 4), 0.5)) == 0


@pytest.mark.parametrize("error", [0.02, 0.1, 0.5])
def test_best_confidence_is_the_error_it_expects(error: float) -> None:
    """The likelihood is greatest where 0.01 ** confidence equals the absolute log error."""
    codes = np.linspace(0, 1, 101)
    depth = np.full((2, 2), math.exp(error))
    costs = [loss(np.ones((2, 2)), depth, np.full((2, 2), code)) for code in codes]
    best = math.log(error) / math.log(BEST_LOG_ERROR)
    assert codes[int(np.argmin(costs))] == pytest.approx(best, abs=0.011)


def test_confidence_does_not_move_the_depth() -> None:
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("reads the gradient with tf.GradientTape")
    target = tf.constant(np.full((1, 4, 4, 1), 2.0, np.float32))
    depth = tf.Variable(np.full((1, 4, 4, 1), 3.0, np.float32))

    def gradient(confidence: float | None) -> np.ndarray:
        with tf.GradientTape() as tape:
            code = None if confidence is None else tf.fill((1, 4, 4, 1), confidence)
            value = depth_loss(target, depth, code)
        return tape.gradient(value, depth).numpy()

    np.testing.assert_array_equal(gradient(0.9), gradient(None))
