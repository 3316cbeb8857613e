"""The loss of prototype masks, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from edgeheads.training.losses.detection import detection_loss  # noqa: E402
from edgeheads.training.losses.instance_segmentation import (  # noqa: E402
    instance_loss,
    prototype_mask_loss,
)


def loss(masks: object, rows: list[int], coefficients: object, prototypes: object) -> float:
    return float(
        prototype_mask_loss(
            np.array([masks], np.int8),
            np.array([rows], np.int32),
            keras.ops.convert_to_tensor(np.array([coefficients], np.float32)),
            keras.ops.convert_to_tensor(np.array([prototypes], np.float32)),
        )
    )


def entropy(logit: float, truth: int) -> float:
    return math.log(1 + math.exp(-logit if truth else logit))


# One prototype, 1 row of 4 pixels.
_RAMP = [[[0.0], [1.0], [2.0], [3.0]]]


def test_a_mask_is_its_anchors_mix_of_prototypes() -> None:
    """Anchor 1 has coefficient -2: logits 0, -2, -4, -6."""
    expected = (entropy(0, 1) + entropy(-2, 1) + entropy(-4, 0) + entropy(-6, 0)) / 4
    assert loss([[[1, 1, 0, 0]]], [1], [[5.0], [-2.0]], _RAMP) == pytest.approx(expected, rel=1e-5)


def test_small_masks_weigh_as_much_as_large_ones() -> None:
    """One pixel of logit 1, and four of which the mean is taken first."""
    masks = [[[-1, 1, -1, -1]], [[0, 0, 0, 0]]]
    large = sum(entropy(logit, 0) for logit in (0, 1, 2, 3)) / 4
    expected = (entropy(1, 1) + large) / 2
    assert loss(masks, [0, 0], [[1.0]], _RAMP) == pytest.approx(expected, rel=1e-5)


def test_unused_masks_do_not_dilute_the_mean() -> None:
    used, unused = [[1, 1, 0, 0]], [[-1, -1, -1, -1]]
    alone = loss([used], [0], [[1.0]], _RAMP)
    assert loss([used, unused, unused], [0, 0, 0], [[1.0]], _RAMP) == pytest.approx(alone)


def test_an_image_without_objects_costs_nothing() -> None:
    assert loss([[[-1, -1, -1, -1]]], [0], [[1.0]], _RAMP) == 0


def test_the_whole_loss_is_the_boxes_and_the_weighted_masks() -> None:
    targets = {
        "classes": np.array([[0, -1]], np.int32),
        "regressions": np.zeros((1, 2, 4), np.float32),
        "masks": np.array([[[[1, 1, 0, 0]]]], np.int8),
        "mask_anchors": np.array([[0]], np.int32),
    }
    outputs = {
        "classifications": keras.ops.zeros((1, 2, 1)),
        "regressions": keras.ops.ones((1, 2, 4)),
        "coefficients": keras.ops.ones((1, 2, 1)),
        "prototypes": keras.ops.convert_to_tensor(np.array([_RAMP], np.float32)),
    }
    masks = loss([[[1, 1, 0, 0]]], [0], [[1.0], [1.0]], _RAMP)
    expected = float(detection_loss(targets, outputs)) + 6.125 * masks
    assert float(instance_loss(targets, outputs)) == pytest.approx(expected, rel=1e-6)
