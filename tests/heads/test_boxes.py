"""Box code, overlap and suppression by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeheads.errors import EdgeheadsError
from edgeheads.heads.boxes import (
    decode_boxes,
    decode_detections,
    encode_boxes,
    intersection,
    iou,
    nms,
    paired_iou,
)

_ANCHOR = np.array([[0.2, 0.2, 0.6, 0.4]], np.float32)


def test_a_box_is_coded_in_tenths_and_fifths_of_its_anchor():
    # The centre moves by 0.1 (a quarter of the width) and 0; twice as wide, equally high.
    box = np.array([[0.1, 0.2, 0.9, 0.4]], np.float32)
    code = encode_boxes(box, _ANCHOR)
    np.testing.assert_allclose(code, [[2.5, 0, math.log(2) / 0.2, 0]], atol=1e-5)
    np.testing.assert_allclose(decode_boxes(code, _ANCHOR), box, atol=1e-6)


def test_no_regression_is_the_anchor():
    np.testing.assert_allclose(decode_boxes(np.zeros((1, 4)), _ANCHOR), _ANCHOR, atol=1e-7)


def test_decoding_undoes_encoding():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.5, (50, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.05, 0.5, (50, 2))], 1).astype(np.float32)
    anchors = np.roll(boxes, 7, axis=0)
    np.testing.assert_allclose(
        decode_boxes(encode_boxes(boxes, anchors), anchors), boxes, atol=1e-5
    )


def test_a_wild_regression_stays_finite():
    box = decode_boxes(np.array([[0, 0, 1e6, 1e6]], np.float32), _ANCHOR)
    np.testing.assert_allclose(box[0, 2] - box[0, 0], 0.4 * 1000 / 16, rtol=1e-5)


def test_iou():
    boxes = np.array([[0, 0, 2, 2]], np.float32)
    others = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [2, 2, 3, 3], [1, 1, 1, 1]], np.float32)
    np.testing.assert_allclose(iou(boxes, others), [[1, 1 / 7, 0, 0]], atol=1e-6)


def test_iou_of_pairs_is_broadcast():
    box = np.array([0, 0, 2, 2], np.float32)
    others = np.array([[[0, 0, 2, 2], [1, 1, 3, 3]]], np.float32)
    np.testing.assert_allclose(paired_iou(box, others), [[1, 1 / 7]], atol=1e-6)
    np.testing.assert_allclose(intersection(box, others), [[4, 1]])
    assert intersection(box, np.array([3, 0, 4, 2], np.float32)) == 0


def test_suppression_keeps_the_better_of_two_that_overlap():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 4]], np.float32)
    scores = np.array([0.6, 0.9, 0.7, 0.8], np.float32)
    assert nms(boxes, scores, 0.5, 10).tolist() == [1, 3, 2]
    assert nms(boxes, scores, 0.3, 10).tolist() == [1, 2]
    assert nms(boxes, scores, 0.5, 1).tolist() == [1]


def _logit(probability):
    return math.log(probability / (1 - probability))


def test_detections_are_suppressed_within_a_class_only_and_sorted_over_all():
    anchors = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.48], [0.5, 0.5, 1, 1]], np.float32)
    scores = np.array([[0.9, 0.2], [0.8, 0.6], [0.01, 0.7]])
    logits = np.vectorize(_logit)(scores).astype(np.float32)
    found = decode_detections(logits, np.zeros((3, 4), np.float32), anchors, score_threshold=0.1)
    assert found.classes.tolist() == [0, 1, 1]
    assert found.anchors.tolist() == [0, 2, 1]
    np.testing.assert_allclose(found.scores, [0.9, 0.7, 0.6], atol=1e-5)
    np.testing.assert_allclose(found.boxes, anchors[[0, 2, 1]], atol=1e-6)
    assert len(decode_detections(logits, np.zeros((3, 4)), anchors, limit=1).scores) == 1


def test_nothing_above_the_threshold_is_nothing_found():
    found = decode_detections(np.full((1, 2), -9.0), np.zeros((1, 4)), _ANCHOR)
    assert found.boxes.shape == (0, 4)
    assert found.classes.shape == found.scores.shape == found.anchors.shape == (0,)


@pytest.mark.parametrize(("rows", "name"), [((2, 1), "classifications"), ((1, 2), "regressions")])
def test_outputs_of_another_anchor_count_are_refused(rows, name):
    with pytest.raises(EdgeheadsError, match=f"{name} has 2 rows for 1 anchors"):
        decode_detections(np.zeros((rows[0], 3)), np.zeros((rows[1], 4)), _ANCHOR)
