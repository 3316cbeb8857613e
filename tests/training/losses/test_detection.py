"""Losses of boxes with classes, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from edgeheads.heads.boxes import encode_boxes  # noqa: E402
from edgeheads.training.losses.detection import (  # noqa: E402
    FocalLoss,
    GeneralizedIoULoss,
    detection_loss,
)
from edgeheads.training.matching import IGNORED, NOTHING  # noqa: E402

# Of a logit of 0, whose probability is 1/2: weight * (1/2)^2 * ln 2.
_THERE, _NOT_THERE = 0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)


def array(values: object) -> np.ndarray:
    return np.asarray(values, np.float32)


def giou_loss(truth: object, found: object) -> list[float]:
    loss = GeneralizedIoULoss(reduction=None)(array(truth), array(found))
    return keras.ops.convert_to_numpy(loss).tolist()


def test_focal_loss_is_summed_over_classes() -> None:
    loss = FocalLoss(reduction=None)(array([[1, 0, 0], [0, 0, 0]]), np.zeros((2, 3), np.float32))
    expected = [_THERE + 2 * _NOT_THERE, 3 * _NOT_THERE]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loss), expected, rtol=1e-5)


def test_focal_loss_of_an_easy_example_falls_by_its_error_squared() -> None:
    """A probability of 0.9 for what is there: 0.25 * 0.1^2 * -ln 0.9."""
    loss = FocalLoss()(array([[1]]), array([[math.log(9)]]))
    assert float(loss) == pytest.approx(0.25 * 0.01 * -math.log(0.9), rel=1e-4)


def test_focal_loss_of_wild_logits_is_finite() -> None:
    loss = FocalLoss()(array([[1, 0]]), array([[-200, 200]]))
    assert float(loss) == pytest.approx(0.25 * 200 + 0.75 * 200, rel=1e-5)


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (0, 0),
        (5, 2 / 3),  # IoU 1/3, and nothing between them
        (10, 1),  # side by side
        (20, 4 / 3),  # one width apart: a third of what is around them is between them
    ],
)
def test_giou_of_two_equal_boxes(shift: float, expected: float) -> None:
    """Ten steps of a centre's regression are one width of the anchor."""
    assert giou_loss([[0, 0, 0, 0]], [[shift, 0, 0, 0]]) == pytest.approx([expected], abs=1e-5)


def test_giou_of_a_box_in_a_larger_one() -> None:
    """Twice as wide and four times as high: IoU 1/8, and nothing around both but the larger."""
    found = [[0, 0, math.log(2) / 0.2, math.log(4) / 0.2]]
    assert giou_loss([[0, 0, 0, 0]], found) == pytest.approx([1 - 1 / 8], abs=1e-5)


def test_giou_is_the_same_in_the_frame_of_any_anchor() -> None:
    boxes = array([[0.1, 0.2, 0.5, 0.4], [0.2, 0.1, 0.6, 0.5]])
    anchors = array([[[0.1, 0.1, 0.4, 0.9]] * 2, [[0.3, 0.3, 0.5, 0.5]] * 2])
    one, other = (encode_boxes(boxes, anchor) for anchor in anchors)
    assert giou_loss(one[:1], one[1:]) == pytest.approx(giou_loss(other[:1], other[1:]), rel=1e-4)


def test_detection_loss_by_hand() -> None:
    """Four anchors: class 1, nothing, ignored, class 0 with a box that is off by half a width.

    Focal 2 (THERE + NOT_THERE) + 2 NOT_THERE; boxes twice 2/3; all by two objects.
    """
    targets = {
        "classes": np.array([[1, NOTHING, IGNORED, 0]], np.int32),
        "regressions": np.zeros((1, 4, 4), np.float32),
    }
    outputs = {
        "classifications": keras.ops.zeros((1, 4, 2)),
        "regressions": keras.ops.convert_to_tensor(
            array([[[0, 0, 0, 0], [9, 9, 9, 9], [9, 9, 9, 9], [5, 0, 0, 0]]])
        ),
    }
    expected = (2 * _THERE + 4 * _NOT_THERE + 2 * 2 / 3) / 2
    assert float(detection_loss(targets, outputs)) == pytest.approx(expected, rel=1e-4)


def test_a_batch_without_objects_costs_its_false_alarms() -> None:
    targets = {
        "classes": np.full((2, 3), NOTHING, np.int32),
        "regressions": np.zeros((2, 3, 4), np.float32),
    }
    outputs = {
        "classifications": keras.ops.zeros((2, 3, 1)),
        "regressions": keras.ops.ones((2, 3, 4)),
    }
    assert float(detection_loss(targets, outputs)) == pytest.approx(6 * _NOT_THERE, rel=1e-5)


@pytest.mark.parametrize("loss", [FocalLoss(alpha=0.5, gamma=1.0), GeneralizedIoULoss()])
def test_a_loss_comes_back_from_its_config(loss: keras.losses.Loss) -> None:
    config = keras.losses.serialize(loss)
    assert config["registered_name"] == f"edgeheads>{type(loss).__name__}"
    twin = keras.losses.deserialize(config)
    truth, found = array([[1, 0, 0, 1]]), array([[0.3, -0.5, 2, 1]])
    assert float(twin(truth, found)) == float(loss(truth, found))
    assert twin.get_config() == loss.get_config()
