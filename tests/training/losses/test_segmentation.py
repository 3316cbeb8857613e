"""Losses of class maps, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from edgeheads.training.losses.segmentation import (  # noqa: E402
    DiceLoss,
    PixelCrossEntropy,
    cross_entropy,
    dice_loss,
    segmentation_loss,
)

# Two pixels, three classes: probabilities (1/2, 1/4, 1/4) and (1/8, 3/4, 1/8).
_PROBABILITIES = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]], np.float32)
LOGITS = np.log(_PROBABILITIES).reshape(1, 1, 2, 3)


def classes(*values: int) -> np.ndarray:
    return np.array(values, np.int32).reshape(1, 1, -1)


def test_cross_entropy_by_hand() -> None:
    expected = -(math.log(0.25) + math.log(0.75)) / 2
    assert float(cross_entropy(classes(2, 1), LOGITS)) == pytest.approx(expected, rel=1e-5)


def test_class_weights_make_a_weighted_mean() -> None:
    expected = -(3 * math.log(0.25) + 1 * math.log(0.75)) / 4
    received = float(cross_entropy(classes(2, 1), LOGITS, [9.0, 1.0, 3.0]))
    assert received == pytest.approx(expected, rel=1e-5)


def test_dice_by_hand() -> None:
    """Class 2: 2 * 1/4 / (1/16 + 1/64 + 1); class 1: 2 * 3/4 / (1/16 + 9/16 + 1); class 0 has no
    pixel and is left out."""
    expected = 1 - (0.5 / (1 / 16 + 1 / 64 + 1) + 1.5 / (1 / 16 + 9 / 16 + 1)) / 2
    assert float(dice_loss(classes(2, 1), LOGITS)) == pytest.approx(expected, rel=1e-5)


def test_dice_is_of_the_whole_batch_not_of_each_image() -> None:
    batch = np.concatenate([LOGITS, LOGITS[:, :, ::-1]])
    labels = np.concatenate([classes(0, 1), classes(1, 0)])
    assert float(dice_loss(labels, batch)) == pytest.approx(
        float(dice_loss(classes(0, 1), LOGITS)), rel=1e-5
    )


@pytest.mark.parametrize("loss", [cross_entropy, dice_loss, segmentation_loss])
@pytest.mark.parametrize("channels", [1, 3])
def test_ignored_pixels_count_for_nothing(loss, channels: int) -> None:
    logits = np.random.default_rng(0).normal(size=(2, 2, 3, channels)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 2, (2, 2, 3)).astype(np.int32)
    labels[:, :, 2] = -1
    other = logits.copy()
    other[:, :, 2] = 77
    received = float(loss(labels, logits))
    assert received == pytest.approx(float(loss(labels[:, :, :2], logits[:, :, :2])), rel=1e-5)
    assert received == float(loss(labels, other))
    assert received > 0


@pytest.mark.parametrize("loss", [cross_entropy, dice_loss, segmentation_loss])
def test_batch_without_a_label_costs_nothing(loss) -> None:
    assert float(loss(classes(-1, -1), LOGITS)) == 0


@pytest.mark.parametrize("loss", [cross_entropy, dice_loss, segmentation_loss])
def test_sure_and_right_costs_nothing(loss) -> None:
    logits = 50 * np.eye(3, dtype=np.float32)[[2, 1]].reshape(1, 1, 2, 3)
    assert float(loss(classes(2, 1), logits)) == pytest.approx(0, abs=1e-6)


def test_one_logit_is_the_sigmoid_of_class_one() -> None:
    """p = 3/4 and 1/5, of which the first is the foreground."""
    logits = np.log(np.array([3.0, 0.25], np.float32)).reshape(1, 1, 2, 1)
    labels = classes(1, 0)
    expected = -(math.log(0.75) + math.log(0.8)) / 2
    assert float(cross_entropy(labels, logits)) == pytest.approx(expected, rel=1e-5)
    dice = 1 - 1.5 / (0.75**2 + 0.2**2 + 1)
    assert float(dice_loss(labels, logits)) == pytest.approx(dice, rel=1e-5)
    weighted = -(3 * math.log(0.75) + math.log(0.8)) / 4
    assert float(cross_entropy(labels, logits, [1.0, 3.0])) == pytest.approx(weighted, rel=1e-5)


def test_extreme_logits_stay_finite() -> None:
    logits = np.array([[1e4, -1e4]], np.float32).reshape(1, 1, 1, 2)
    assert float(segmentation_loss(classes(1), logits)) == pytest.approx(2e4 + 1)


def test_loss_objects_are_the_functions() -> None:
    labels = classes(2, 1)
    weights = [1.0, 2.0, 3.0]
    expected = float(cross_entropy(labels, LOGITS, weights))
    assert float(PixelCrossEntropy(weights)(labels, LOGITS)) == pytest.approx(expected)
    assert float(DiceLoss()(labels, LOGITS)) == pytest.approx(float(dice_loss(labels, LOGITS)))
    ignoring = float(PixelCrossEntropy()(classes(2, -1), LOGITS))
    assert ignoring == pytest.approx(-math.log(0.25), rel=1e-5)


def test_loss_objects_are_saved_with_their_options() -> None:
    restored = keras.losses.deserialize(keras.losses.serialize(PixelCrossEntropy([1.0, 0.5])))
    assert isinstance(restored, PixelCrossEntropy)
    assert restored.class_weights == [1.0, 0.5]
    assert isinstance(keras.losses.deserialize(keras.losses.serialize(DiceLoss())), DiceLoss)
