"""Losses of class scores, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeheads.errors import EdgeheadsError

keras = pytest.importorskip("keras")

from edgeheads.training.losses.classification import (  # noqa: E402
    SmoothedCrossEntropy,
    classification_loss,
    compute_class_weights,
)

# Probabilities 1/2, 1/4, 1/4.
LOGITS = np.log([[2.0, 1.0, 1.0]]).astype(np.float32)


def loss(labels: list[int], logits: np.ndarray, **options: object) -> float:
    return float(classification_loss(np.array(labels, np.int32), logits, **options))


def test_cross_entropy_by_hand() -> None:
    assert loss([0], LOGITS) == pytest.approx(math.log(2), rel=1e-6)
    assert loss([2], LOGITS) == pytest.approx(math.log(4), rel=1e-6)
    assert loss([0, 2], np.repeat(LOGITS, 2, axis=0)) == pytest.approx(1.5 * math.log(2), rel=1e-6)


def test_smoothing_by_hand() -> None:
    """The label becomes 0.8, 0.1, 0.1: 0.8 ln 2 + 0.2 ln 4 = 1.2 ln 2."""
    assert loss([0], LOGITS, label_smoothing=0.3) == pytest.approx(1.2 * math.log(2), rel=1e-6)


def test_weights_by_hand() -> None:
    """(3 ln 2 + 1 ln 4) / (3 + 1)."""
    value = loss([0, 2], np.repeat(LOGITS, 2, axis=0), class_weights=[3.0, 9.0, 1.0])
    assert value == pytest.approx(5 / 4 * math.log(2), rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"class_weights": [1.0, 2.0, 3.0]}])
def test_image_without_a_class_counts_for_nothing(options: dict[str, object]) -> None:
    two = np.concatenate([LOGITS, [[9.0, -9.0, 0.0]]]).astype(np.float32)
    assert loss([0, -1], two, **options) == pytest.approx(loss([0], LOGITS, **options), rel=1e-6)
    assert loss([-1], LOGITS, **options) == 0


def test_extreme_logits_stay_finite() -> None:
    value = loss([1], np.array([[300.0, -300.0]], np.float32), label_smoothing=0.1)
    assert value == pytest.approx(0.95 * 600, rel=1e-5)


def test_class_weights_by_hand() -> None:
    """Of 8 samples 4, 2 and 2: 8 / (3 * 4), 8 / (3 * 2)."""
    assert compute_class_weights([4, 2, 2]) == pytest.approx([2 / 3, 4 / 3, 4 / 3])
    assert compute_class_weights([5, 5]) == [1, 1]


def test_class_weights_weigh_one_on_average_and_nothing_where_nothing_is() -> None:
    counts = np.array([1, 0, 90, 9])
    weights = np.array(compute_class_weights(counts))
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[1] == 0
    np.testing.assert_allclose((weights * counts)[[0, 2, 3]], 100 / 3)


@pytest.mark.parametrize("counts", [[], [0, 0], [1, -1], [[1, 2]]])
def test_class_weights_of_nothing(counts: list[object]) -> None:
    with pytest.raises(EdgeheadsError, match=r"how often each class occurs.* received"):
        compute_class_weights(counts)


def test_keras_loss_is_the_function_and_survives_saving() -> None:
    made = SmoothedCrossEntropy(class_weights=[1.0, 2.0, 3.0], label_smoothing=0.2)
    again = keras.losses.deserialize(keras.losses.serialize(made))
    assert isinstance(again, SmoothedCrossEntropy)
    labels, logits = np.array([0, 2]), np.repeat(LOGITS, 2, axis=0)
    expected = loss([0, 2], logits, class_weights=[1.0, 2.0, 3.0], label_smoothing=0.2)
    for one in (made, again):
        assert float(one(labels, logits)) == pytest.approx(expected, rel=1e-6)


def test_smoothing_out_of_range() -> None:
    with pytest.raises(EdgeheadsError, match=r"label_smoothing must be in \[0, 1\), received 1"):
        SmoothedCrossEntropy(label_smoothing=1)
