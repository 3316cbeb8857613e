"""Losses, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from edgeheads.errors import EdgeheadsError  # noqa: E402
from edgeheads.training.losses.depth import (  # noqa: E402
    BEST_LOG_ERROR,
    ScaleInvariantLogLoss,
    depth_loss,
)


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


def test_scale_invariant_loss_by_hand() -> None:
    """Log errors 1, 3 and a pixel without reading: mean of squares 5, squared mean 4; the second
    image is perfect."""
    target = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 2.0]], np.float32).reshape(2, 1, 3, 1)
    depth = np.array([[math.e, math.e**3, 9.0], [2.0, 2.0, 2.0]], np.float32).reshape(2, 1, 3, 1)
    assert float(ScaleInvariantLogLoss()(target, depth)) == pytest.approx((5 - 0.5 * 4) / 2)
    assert float(ScaleInvariantLogLoss(0.0)(target, depth)) == pytest.approx(5 / 2)


def test_one_factor_for_the_whole_image_costs_nothing_at_full_scale_invariance() -> None:
    target = np.random.default_rng(0).uniform(1, 5, (2, 4, 4, 1)).astype(np.float32)
    assert float(ScaleInvariantLogLoss(1.0)(target, target * 1.7)) == pytest.approx(0, abs=1e-6)
    assert float(ScaleInvariantLogLoss(0.5)(target, target * 1.7)) > 0.1


def test_scale_invariant_loss_of_an_image_without_a_reading_is_zero() -> None:
    assert float(ScaleInvariantLogLoss()(np.zeros((1, 2, 2, 1)), np.ones((1, 2, 2, 1)))) == 0


def test_scale_invariant_loss_is_saved_with_its_option() -> None:
    loss = ScaleInvariantLogLoss(0.85, name="silog")
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert (type(restored), restored.scale_invariance, restored.name) == (
        ScaleInvariantLogLoss,
        0.85,
        "silog",
    )


def test_impossible_scale_invariance_is_refused() -> None:
    with pytest.raises(EdgeheadsError, match=r"scale_invariance must be in \[0, 1\], received 2"):
        ScaleInvariantLogLoss(2)
