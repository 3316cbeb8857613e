"""Instance masks by hand."""

from __future__ import annotations

import keras
import numpy as np

from edgeheads.heads.masks import box_masks, paste_masks

_WHOLE = np.array([[0, 0, 1, 1]], np.float32)


def test_a_mask_is_the_weighted_sum_of_the_prototypes():
    prototypes = np.arange(32, dtype=np.float32).reshape(4, 4, 2)
    mask = box_masks(prototypes, np.array([[2, -1]], np.float32), _WHOLE, (4, 4))
    np.testing.assert_allclose(mask[0], 2 * prototypes[..., 0] - prototypes[..., 1], atol=1e-5)


def test_a_mask_is_read_inside_its_box():
    prototypes = np.zeros((4, 4, 1), np.float32)
    prototypes[:2, 2:] = 1  # the upper right quarter
    boxes = np.array([[0.5, 0, 1, 0.5], [0, 0, 0.5, 0.5], [0, 0, 1, 1]], np.float32)
    masks = box_masks(prototypes, np.ones((3, 1), np.float32), boxes, (2, 2))
    np.testing.assert_allclose(masks[0], 1, atol=1e-6)
    np.testing.assert_allclose(masks[1], 0, atol=1e-6)
    # Cell centres of the whole image lie between two prototype pixels of one quarter.
    np.testing.assert_allclose(masks[2], [[0, 1], [0, 0]], atol=1e-6)


def test_reading_between_two_pixels_is_linear():
    prototypes = np.array([[0.0], [1.0]], np.float32)[None]  # one row, two columns
    mask = box_masks(prototypes, np.ones((1, 1), np.float32), _WHOLE, (1, 4))
    np.testing.assert_allclose(mask[0, 0], [0, 0.25, 0.75, 1], atol=1e-6)


def test_a_graph_and_a_device_compute_the_same():
    rng = np.random.default_rng(0)
    prototypes = rng.normal(size=(2, 5, 6, 3)).astype("float32")
    coefficients = rng.normal(size=(2, 4, 3)).astype("float32")
    low = rng.uniform(0, 0.5, (2, 4, 2))
    boxes = np.concatenate([low, low + 0.4], -1).astype("float32")
    expected = box_masks(prototypes, coefficients, boxes, (3, 4))
    tensors = (keras.ops.convert_to_tensor(x) for x in (prototypes, coefficients, boxes))
    received = box_masks(*tensors, (3, 4), keras.ops)
    assert expected.shape == (2, 4, 3, 4)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(received), expected, atol=1e-5)


def test_a_mask_is_pasted_where_its_box_is():
    masks = np.array([[[1.0, -1.0]]], np.float32)  # the left half of its box
    pasted = paste_masks(masks, np.array([[0.5, 0.25, 1, 0.5]], np.float32), (8, 8))
    expected = np.zeros((8, 8), bool)
    expected[2:4, 4:6] = True
    np.testing.assert_array_equal(pasted[0], expected)


def test_a_box_between_two_pixels_has_no_pixel():
    box = np.array([[0.51, 0.51, 0.55, 0.55]], np.float32)
    assert not paste_masks(np.ones((1, 2, 2), np.float32), box, (4, 4)).any()
