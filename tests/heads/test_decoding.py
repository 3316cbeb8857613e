"""What single heads say, checked against numbers computed by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from edgeheads.heads import create_vision_head
from edgeheads.heads.boxes import decode_boxes
from edgeheads.heads.keypoints import _decode
from edgeheads.heads.masks import box_masks

_SMALL = {"hidden_dim": 8, "use_ffn": False}


def _features(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _arrays(outputs):
    return {key: keras.ops.convert_to_numpy(value) for key, value in outputs.items()}


def test_keypoints_are_the_peak_moved_by_its_offset():
    heatmaps = np.full((1, 4, 8, 2), -3, "float32")
    offsets = np.zeros((1, 4, 8, 4), "float32")
    heatmaps[0, 1, 6, 0] = 0.0
    offsets[0, 1, 6, :2] = (0.25, -0.5)
    heatmaps[0, 3, 7, 1] = 2.0
    offsets[0, 3, 7, 2:] = (9.0, 0.0)  # beyond the image
    points = keras.ops.convert_to_numpy(
        _decode(*map(keras.ops.convert_to_tensor, (heatmaps, offsets)))
    )
    expected = [[6.75 / 8, 1.0 / 4, 0.5], [1.0, 3.5 / 4, 1 / (1 + np.exp(-2))]]
    np.testing.assert_allclose(points[0], expected, atol=1e-6)


def test_the_keypoints_of_a_head_are_those_of_its_heatmaps():
    head = create_vision_head("pose", num_keypoints=4, **_SMALL)
    outputs = _arrays(head(_features(2, 5, 7, 6)))
    for b in range(2):
        for k in range(4):
            heat = outputs["heatmaps"][b, ..., k]
            row, column = np.unravel_index(heat.argmax(), heat.shape)
            dx, dy = outputs["offsets"][b, row, column, 2 * k : 2 * k + 2]
            expected = np.clip([(column + 0.5 + dx) / 7, (row + 0.5 + dy) / 5], 0, 1)
            np.testing.assert_allclose(outputs["keypoints"][b, k, :2], expected, atol=1e-5)
            score = 1 / (1 + np.exp(-heat.max()))
            assert outputs["keypoints"][b, k, 2] == pytest.approx(score, abs=1e-5)


def test_probabilities_are_the_softmax_of_logits():
    outputs = _arrays(create_vision_head("cls", num_classes=4, **_SMALL)(_features(2, 3, 3, 5)))
    powers = np.exp(outputs["logits"])
    expected = powers / powers.sum(-1, keepdims=True)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-6)


@pytest.mark.parametrize("classes", [1, 3])
def test_masks_are_probabilities(classes):
    head = create_vision_head("seg", num_classes=classes, **_SMALL)
    outputs = _arrays(head(_features(1, 3, 3, 5)))
    powers = np.exp(outputs["logits"])
    expected = powers / (powers.sum(-1, keepdims=True) if classes > 1 else 1 + powers)
    np.testing.assert_allclose(outputs["masks"], expected, atol=1e-6)


def test_normals_are_unit_vectors_that_face_the_camera_at_first():
    head = create_vision_head("normals", **_SMALL)
    normals = _arrays(head(_features(2, 4, 4, 6)))["normals"]
    np.testing.assert_allclose((normals**2).sum(-1), 1, atol=1e-5)
    zero = _arrays(head(np.zeros((1, 4, 4, 6), "float32")))["normals"]
    np.testing.assert_allclose(zero, np.broadcast_to([0, 0, -1], zero.shape), atol=1e-6)


def test_detection_starts_at_the_prior_probability():
    head = create_vision_head("det", num_classes=2, prior_probability=0.02, **_SMALL)
    logits = _arrays(head(np.zeros((1, 4, 4, 6), "float32")))["classifications"]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), 0.02, atol=1e-5)


def test_a_row_of_a_detector_belongs_to_the_anchor_of_that_row():
    head = create_vision_head(
        "det", num_classes=1, num_anchors=2, anchor_scales=(1.0,), anchor_ratios=(1.0, 2.0),
        normalization_type="batch_norm", **_SMALL,
    )  # fmt: skip
    maps = [np.zeros((1, 4, 6, 3), "float32"), np.zeros((1, 2, 3, 3), "float32")]
    quiet = _arrays(head(maps))["classifications"][0, :, 0]
    # The far corner of the coarse level, which the fine level's near corner does not see.
    loud = [maps[0], maps[1].copy()]
    loud[1][0, 1, 2] = 50
    changed = np.flatnonzero(_arrays(head(loud))["classifications"][0, :, 0] != quiet)
    centers = head.anchors.boxes([(4, 6), (2, 3)]).reshape(-1, 2, 2).mean(1)[changed]
    assert len(changed) < len(quiet)
    assert changed.max() == len(quiet) - 1
    assert centers[:, 0].max() > 0.9
    assert centers[:, 0].min() > 0.15


def test_instances_are_the_best_anchors_with_their_boxes_scores_and_masks():
    head = create_vision_head(
        "instance", num_classes=3, num_instances=5, mask_size=(6, 4), num_prototypes=4, **_SMALL
    )
    outputs = {key: value[0] for key, value in _arrays(head(_features(1, 4, 5, 6))).items()}
    best = np.argsort(-outputs["classifications"].max(-1), kind="stable")[:5]
    scores = 1 / (1 + np.exp(-outputs["classifications"][best]))
    np.testing.assert_allclose(outputs["instance_scores"], scores, atol=1e-5)
    anchors = head.anchors.boxes([(4, 5)])[best]
    boxes = np.clip(decode_boxes(outputs["regressions"][best], anchors), 0, 1)
    np.testing.assert_allclose(outputs["instance_boxes"], boxes, atol=1e-5)
    masks = box_masks(outputs["prototypes"], outputs["coefficients"][best], boxes, (6, 4))
    np.testing.assert_allclose(outputs["instance_masks"], 1 / (1 + np.exp(-masks)), atol=1e-5)


def test_there_are_no_more_instances_than_anchors():
    head = create_vision_head("instance", num_classes=2, num_instances=100, **_SMALL)
    assert head(_features(1, 2, 2, 6))["instance_masks"].shape == (1, 36, 28, 28)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_without_a_correction_the_image_comes_back_enlarged(scale):
    head = create_vision_head("enhancement", residual=True, scale=scale, **_SMALL)
    image = np.random.default_rng(0).uniform(size=(1, 8, 8, 3)).astype("float32")
    inputs = [image, _features(1, 4, 4, 6)]
    head.build([x.shape for x in inputs])
    changed = _arrays(head(inputs))["image"]
    last = head.part(keras.layers.Conv2D, "paint_colors")
    last.set_weights([np.zeros_like(one) for one in last.get_weights()])
    received = _arrays(head(inputs))["image"]
    enlarge = keras.layers.UpSampling2D(scale, interpolation="bilinear")
    expected = keras.ops.convert_to_numpy(enlarge(image))
    np.testing.assert_allclose(received, expected, atol=1e-6)
    assert np.abs(changed - received).max() > 1e-3


@pytest.mark.parametrize(("encoding", "middle"), [("log", 2.0), ("linear", 4.25)])
def test_a_code_of_one_half_is_the_middle_of_the_depth_range(encoding, middle):
    head = create_vision_head(
        "depth", min_depth=0.5, max_depth=8.0, depth_encoding=encoding, **_SMALL
    )
    head.build((None, 2, 2, 4))
    last = head.part(keras.layers.Conv2D, "code_logits")
    last.set_weights([np.zeros_like(one) for one in last.get_weights()])
    depth = _arrays(head(_features(1, 2, 2, 4)))["depth"]
    np.testing.assert_allclose(depth, middle, rtol=1e-5)
