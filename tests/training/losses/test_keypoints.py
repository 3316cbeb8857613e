"""Losses of heatmaps and offsets, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from edgeheads.training.losses.keypoints import (  # noqa: E402
    HeatmapFocalLoss,
    cell_cross_entropy,
    cell_offsets,
    heatmap_focal_loss,
    heatmaps,
    keypoint_loss,
)

SIZE = (4, 8)


def points(*rows: tuple[float, float, int]) -> np.ndarray:
    """x and y in cells of an 8x4 map."""
    return np.array([rows], np.float32) / np.array([8, 4, 1], np.float32)


def array(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def test_heatmap_is_a_gaussian_around_the_cell_of_the_keypoint() -> None:
    received = array(heatmaps(points((2.9, 1.1, 2)), SIZE))
    assert received.shape == (1, 4, 8, 1)
    rows, columns = np.mgrid[:4, :8]
    expected = np.exp(-((columns - 2) ** 2 + (rows - 1) ** 2) / 2)
    np.testing.assert_allclose(received[0, ..., 0], expected, atol=1e-6)
    assert received[0, 1, 2, 0] == 1


@pytest.mark.parametrize(
    ("x", "y", "row", "column"),
    [(0.0, 0.0, 0, 0), (8.0, 4.0, 3, 7), (3.0, 2.0, 2, 3), (4.0, 1.0, 1, 4), (7.999, 3.999, 3, 7)],
)
def test_a_point_on_the_edge_of_a_cell_has_one_cell(x, y, row, column) -> None:
    received = array(heatmaps(points((x, y, 1)), SIZE))[0, ..., 0]
    assert np.argwhere(received == 1).tolist() == [[row, column]]


def test_unlabelled_heatmaps_are_masked_and_outside_ones_empty() -> None:
    received = array(heatmaps(points((0, 0, 0), (9, 1, 2), (1, -0.5, 1)), SIZE))
    assert (received[..., 0] == -1).all()
    assert (received[..., 1:] == 0).all()


def test_offsets_lead_from_every_near_cell_to_the_keypoint() -> None:
    shifts, near = (array(one) for one in cell_offsets(points((2.9, 1.1, 2)), SIZE))
    np.testing.assert_allclose(shifts[0, 1, 2, 0], [0.4, -0.4], atol=1e-5)
    np.testing.assert_allclose(shifts[0, 2, 4, 0], [-1.6, -1.4], atol=1e-5)
    rows, columns = np.mgrid[:4, :8]
    np.testing.assert_array_equal(near[0, ..., 0], (columns - 2) ** 2 + (rows - 1) ** 2 <= 4)


def test_offsets_of_points_not_in_the_image_are_not_learned() -> None:
    _, near = cell_offsets(points((2, 2, 0), (9, 1, 2)), SIZE)
    assert not array(near).any()


def test_focal_loss_by_hand() -> None:
    """p = 3/4 at the peak, 1/2 where the target is 0.5, 1/5 where it is 0; and a masked cell."""
    logits = np.log(np.array([3.0, 1.0, 0.25, 99.0], np.float32)).reshape(1, 1, 4, 1)
    target = np.array([1.0, 0.5, 0.0, -1.0], np.float32).reshape(1, 1, 4, 1)
    expected = -(
        0.25**2 * math.log(0.75) + 0.5**4 * 0.5**2 * math.log(0.5) + 0.2**2 * math.log(0.8)
    )
    assert float(heatmap_focal_loss(target, logits)) == pytest.approx(expected, rel=1e-4)
    assert float(HeatmapFocalLoss()(target, logits)) == pytest.approx(expected, rel=1e-4)


def test_cell_cross_entropy_by_hand() -> None:
    """Shares 2/3 and 1/3 of two cells with probabilities 1/2 and 1/4; a heatmap that is masked and
    one that is empty count for nothing."""
    target = np.array([[1.0, 0.5, 0.0], [-1, -1, -1], [0, 0, 0]], np.float32).T.reshape(1, 1, 3, 3)
    one = np.log(np.array([2.0, 1.0, 1.0], np.float32))
    logits = np.stack([one, 9 * one, -9 * one], axis=-1).reshape(1, 1, 3, 3)
    expected = -(2 / 3 * math.log(0.5) + 1 / 3 * math.log(0.25))
    assert float(cell_cross_entropy(target, logits)) == pytest.approx(expected, rel=1e-5)


def test_focal_loss_is_a_mean_over_keypoints() -> None:
    logits = np.random.default_rng(0).normal(size=(1, 4, 8, 1)).astype(np.float32)
    target = array(heatmaps(points((2.9, 1.1, 2)), SIZE))
    twice = float(heatmap_focal_loss(np.repeat(target, 2, -1), np.repeat(logits, 2, -1)))
    assert twice == pytest.approx(float(heatmap_focal_loss(target, logits)), rel=1e-5)


def test_keypoint_loss_adds_the_smooth_error_of_near_offsets() -> None:
    """Off by 0.2 in x everywhere, and by 2 in y: 0.5 * 0.2^2 + (2 - 0.5) a cell."""
    keypoints = points((2.9, 1.1, 2))
    logits = np.zeros((1, 4, 8, 1), np.float32)
    shifts, _ = cell_offsets(keypoints, SIZE)
    offsets = array(shifts).reshape(1, 4, 8, 2)
    perfect = float(keypoint_loss(keypoints, logits, offsets))
    target = heatmaps(keypoints, SIZE)
    places = float(heatmap_focal_loss(target, logits)) + float(cell_cross_entropy(target, logits))
    assert perfect == pytest.approx(places, rel=1e-5)
    off = float(keypoint_loss(keypoints, logits, offsets + np.float32([0.2, -2.0])))
    assert off - perfect == pytest.approx(0.5 * 0.04 + 1.5, rel=1e-4)


def test_offsets_are_channels_x_and_y_of_each_keypoint_in_turn() -> None:
    keypoints = points((2.5, 1.5, 2), (6.5, 2.5, 2))
    logits = np.zeros((1, 4, 8, 2), np.float32)
    offsets = array(cell_offsets(keypoints, SIZE)[0]).reshape(1, 4, 8, 4)
    perfect = float(keypoint_loss(keypoints, logits, offsets))
    wrong = float(keypoint_loss(keypoints, logits, offsets[..., [2, 3, 0, 1]]))
    assert wrong > perfect + 0.5


def test_nothing_is_learned_of_an_unlabelled_keypoint() -> None:
    keypoints = points((2.9, 1.1, 2), (0, 0, 0))
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 4, 8, 2)).astype(np.float32)
    offsets = rng.normal(size=(1, 4, 8, 4)).astype(np.float32)
    before = float(keypoint_loss(keypoints, logits, offsets))
    alone = float(keypoint_loss(keypoints[:, :1], logits[..., :1], offsets[..., :2]))
    logits[..., 1], offsets[..., 2:] = 50, 50
    assert float(keypoint_loss(keypoints, logits, offsets)) == pytest.approx(before)
    assert before == pytest.approx(alone, rel=1e-5)
    assert float(keypoint_loss(keypoints[:, 1:], logits[..., 1:], offsets[..., 2:])) == 0


def test_extreme_logits_stay_finite() -> None:
    keypoints = points((2.9, 1.1, 2))
    for sign in (1, -1):
        logits = np.full((1, 4, 8, 1), sign * 1e4, np.float32)
        assert math.isfinite(
            float(keypoint_loss(keypoints, logits, np.zeros((1, 4, 8, 2), np.float32)))
        )


def test_focal_loss_object_is_saved() -> None:
    restored = keras.losses.deserialize(keras.losses.serialize(HeatmapFocalLoss()))
    assert isinstance(restored, HeatmapFocalLoss)
