"""The instance segmentation task: mask targets, decoding, the baseline, the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeheads.data.sample import LabelNames, Objects, Sample
from edgeheads.data.synthetic import SyntheticScenes
from edgeheads.errors import EdgeheadsError
from edgeheads.heads.anchors import AnchorGenerator, AnchorLayout
from edgeheads.tasks import get_task
from edgeheads.tasks.drawing import class_color
from edgeheads.training.matching import match_anchors
from tasks.test_detection import DECODING, perfect_outputs

TASK = get_task("instance-segmentation")
NAMES = LabelNames(classes=("cat", "dog"))
MASK_DECODING = {**DECODING, "prototypes": [8, 8], "mask_size": [4, 4]}


def sample(boxes: Any, masks: np.ndarray | None, classes: Any = (0,)) -> Sample:
    """An image of 32 by 32 pixels."""
    count = len(classes)
    objects = Objects(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(classes, np.int32),
        np.zeros(count, bool),
        masks,
    )
    return Sample(np.zeros((32, 32, 3), np.uint8), "by hand", objects=objects)


def half_masked() -> Sample:
    """An object that is the left half of its box, which is cell 5 of a 4x4 grid."""
    mask = np.zeros((1, 32, 32), bool)
    mask[:, 8:16, 8:12] = True
    return sample([[8, 8, 16, 16]], mask)


def test_mask_targets_by_hand() -> None:
    """The box is 2 by 2 of 8 by 8 prototype pixels, of which the object is the left two."""
    targets = TASK.target(half_masked(), (32, 32), MASK_DECODING)
    assert targets["masks"].shape == (16, 8, 8)
    assert targets["mask_anchors"].tolist() == [5] + [0] * 15
    expected = np.full((8, 8), -1)
    expected[2:4, 2:4] = 0
    expected[2:4, 2] = 1
    np.testing.assert_array_equal(targets["masks"][0], expected)
    assert (targets["masks"][1:] == -1).all()


def test_targets_have_one_shape_however_many_objects() -> None:
    layout = AnchorLayout(AnchorGenerator((1.0, 1.5), (0.5, 1.0, 2.0)), ((16, 16), (8, 8)))
    decoding = {**MASK_DECODING, "anchors": layout.to_json(), "prototypes": [32, 32]}
    none = sample([], np.zeros((0, 32, 32), bool), classes=())
    for one in (*SyntheticScenes(3, (128, 128)), none):
        targets = TASK.target(one, (128, 128), decoding)
        assert {name: array.shape for name, array in targets.items()} == {
            "classes": (len(layout.boxes),),
            "regressions": (len(layout.boxes), 4),
            "masks": (16, 32, 32),
            "mask_anchors": (16,),
        }
        used = (targets["masks"] >= 0).any(axis=(1, 2))
        assert (targets["classes"][targets["mask_anchors"][used]] >= 0).all()
        assert used.sum() == min(16, (targets["classes"] >= 0).sum())


def test_another_picture_of_the_same_objects_trains_other_anchors() -> None:
    layout = AnchorLayout(AnchorGenerator((1.0, 1.5), (0.5, 1.0, 2.0)), ((16, 16), (8, 8)))
    decoding = {**MASK_DECODING, "anchors": layout.to_json(), "prototypes": [32, 32]}
    scene = SyntheticScenes(1, (128, 128))[0]
    brighter = Sample(scene.image // 2 + 90, scene.name, objects=scene.objects)
    rows = [TASK.target(one, (128, 128), decoding)["mask_anchors"] for one in (scene, brighter)]
    again = TASK.target(scene, (128, 128), decoding)["mask_anchors"]
    assert rows[0].tolist() == again.tolist()
    assert rows[0].tolist() != rows[1].tolist()


def test_decoding_mixes_the_prototypes_of_each_box() -> None:
    outputs = {
        "classifications": np.full((1, 16, 1), -9, np.float32),
        "regressions": np.zeros((1, 16, 4), np.float32),
        "coefficients": np.zeros((1, 16, 2), np.float32),
        "prototypes": np.ones((1, 8, 8, 2), np.float32),
    }
    outputs["classifications"][0, [3, 5], 0] = (2, 1)
    outputs["coefficients"][0, 3] = (1, 0.5)
    outputs["coefficients"][0, 5] = (-1, 0)
    found = TASK.decode(outputs, MASK_DECODING)
    assert found["mask_logits"].shape == (2, 4, 4)
    np.testing.assert_allclose(found["mask_logits"][0], 1.5, atol=1e-6)
    np.testing.assert_allclose(found["mask_logits"][1], -1, atol=1e-6)


def test_nothing_found_has_no_masks() -> None:
    outputs = {
        "classifications": np.full((1, 16, 1), -9, np.float32),
        "regressions": np.zeros((1, 16, 4), np.float32),
        "coefficients": np.zeros((1, 16, 2), np.float32),
        "prototypes": np.ones((1, 8, 8, 2), np.float32),
    }
    assert TASK.decode(outputs, MASK_DECODING)["mask_logits"].shape == (0, 4, 4)


def test_a_network_that_has_learned_its_targets_finds_every_mask() -> None:
    """One prototype for each object, which only its own anchors mix in. Prototypes a quarter of
    the image's size and masks of 28 by 28 cells lose some of the edge.
    """
    pytest.importorskip("pycocotools")
    layout = AnchorLayout(AnchorGenerator((1.0,), (1.0,)), ((32, 32), (16, 16), (8, 8)))
    decoding = {
        **DECODING, "anchors": layout.to_json(), "prototypes": [64, 64], "mask_size": [28, 28]
    }  # fmt: skip
    evaluator = TASK.evaluator(decoding)
    for scene in SyntheticScenes(6, (128, 128)):
        assert scene.objects is not None
        masks = scene.objects.masks
        assert masks is not None
        targets = TASK.target(scene, (128, 128), decoding)
        outputs = perfect_outputs(targets, 3)
        signs = masks[:, ::2, ::2] * 2.0 - 1
        size = np.array(scene.image.shape[1::-1] * 2, np.float32)
        matched = match_anchors(layout, scene.objects.boxes / size, scene.objects.crowd)
        coefficients = np.zeros((1, len(matched), len(masks)), np.float32)
        rows = np.flatnonzero(matched >= 0)
        coefficients[0, rows, matched[rows]] = 1
        outputs |= {"coefficients": coefficients, "prototypes": np.moveaxis(signs, 0, -1)[None]}
        evaluator.update(TASK.decode(outputs, decoding), scene)
    metrics = evaluator.result()["metrics"]
    assert set(metrics) == {metric.name for metric in TASK.metrics}
    assert metrics["box_map"] > 0.99
    assert metrics["ap50"] > 0.99
    assert metrics["map"] > 0.7


def test_boxes_alone_are_refused_with_what_they_would_do_for() -> None:
    with pytest.raises(EdgeheadsError, match=r"by hand has boxes but no masks.*--task detection"):
        TASK.check(sample([[0, 0, 1, 1]], None))
    TASK.check(half_masked())


def test_baseline_fills_typical_boxes_with_ellipses() -> None:
    baseline = TASK.baseline([half_masked()], NAMES)
    assert baseline["kind"] == "ellipses in the most typical boxes of the training set"
    prediction = TASK.predict_baseline(baseline, (32, 32))
    np.testing.assert_allclose(prediction["boxes"], [[0.25, 0.25, 0.5, 0.5]])
    [mask] = prediction["mask_logits"] > 0
    assert mask.mean() == pytest.approx(np.pi / 4, abs=0.01)
    assert not mask[0, 0]
    assert mask[14, 14]


def test_a_drawing_lays_masks_over_the_image_beside_it() -> None:
    image = np.full((101, 201, 3), 40, np.uint8)
    left_half = np.where(np.arange(4) < 2, 1.0, -1.0) * np.ones((1, 4, 4))
    prediction = {
        "boxes": np.array([[0.1, 0.3, 0.5, 0.9]], np.float32),
        "scores": np.array([0.9], np.float32),
        "classes": np.array([1]),
        "mask_logits": left_half.astype(np.float32),
    }
    drawn = TASK.draw(image, prediction, NAMES.classes)
    np.testing.assert_array_equal(drawn[:, :201], image)
    panel = drawn[:, 209:]
    assert panel[70, 40].tolist() == [(40 + value) // 2 for value in class_color(0)]
    assert panel[70, 80].tolist() == [40, 40, 40]
    assert tuple(panel[90, 60]) == class_color(1)


def test_a_label_is_drawn_with_its_mask_at_any_size() -> None:
    drawn = TASK.draw_label(np.zeros((64, 64, 3), np.uint8), half_masked(), NAMES)
    assert drawn[24, 20].tolist() == [value // 2 for value in class_color(0)]
    assert drawn[24, 28].tolist() == [0, 0, 0]
    none = sample([], np.zeros((0, 32, 32), bool), classes=())
    assert not TASK.draw_label(np.zeros((64, 64, 3), np.uint8), none, NAMES).any()


def test_a_graph_gives_the_size_of_its_prototypes() -> None:
    pytest.importorskip("tensorflow")
    from edgeheads.backbones import create_backbone
    from edgeheads.model import build_model

    options = {
        "num_anchors": 1, "anchor_scales": [1.0], "anchor_ratios": [1.0], "mask_size": [14, 14]
    }  # fmt: skip
    model = build_model(
        create_backbone("tiny", (64, 96, 3)), TASK.type, num_classes=2, hidden_dim=8, **options
    )
    task = get_task("instance-segmentation", options)
    outputs, decoding = task.edge_outputs(model, "instance_segmentation")
    assert set(outputs) == {"classifications", "regressions", "coefficients", "prototypes"}
    assert decoding["mask_size"] == [14, 14]
    finest = decoding["anchors"]["grids"][0]
    assert decoding["prototypes"] == [2 * side for side in finest]
