"""The detection task: targets, decoding, the baseline, the picture."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from edgeheads.data.sample import LabelNames, Objects, Sample
from edgeheads.data.synthetic import SyntheticScenes
from edgeheads.errors import EdgeheadsError
from edgeheads.heads.anchors import AnchorGenerator, AnchorLayout
from edgeheads.tasks import get_task
from edgeheads.tasks.drawing import class_color
from edgeheads.tasks.typical_boxes import typical_boxes
from edgeheads.training.matching import IGNORED, NOTHING

TASK = get_task("detection")
NAMES = LabelNames(classes=("cat", "dog"))

# Sixteen anchors, each one cell of a 4x4 grid.
CELLS = AnchorLayout(AnchorGenerator((1.0,), (1.0,), cells=1.0), ((4, 4),))
DECODING = {
    "anchors": CELLS.to_json(),
    "score_threshold": 0.01,
    "iou_threshold": 0.6,
    "limit": 100,
}


def sample(boxes: Any, classes: Any, crowd: Any = None, size: tuple[int, int] = (80, 40)) -> Sample:
    objects = Objects(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(classes, np.int32),
        np.array([False] * len(classes) if crowd is None else crowd, bool),
    )
    return Sample(np.zeros((*size, 3), np.uint8), "by hand", objects=objects)


def perfect_outputs(targets: dict[str, np.ndarray], classes: int) -> dict[str, np.ndarray]:
    """What a network that has learned its targets says."""
    logits = np.full((1, len(targets["classes"]), classes), -9, np.float32)
    rows = np.flatnonzero(targets["classes"] >= 0)
    logits[0, rows, targets["classes"][rows]] = 9
    return {"classifications": logits, "regressions": targets["regressions"][None]}


def test_targets_by_hand() -> None:
    """An object that is cell 5 of the grid, of class 1; and one twice as wide as cell 10."""
    one = sample([[10, 20, 20, 40], [15, 40, 35, 60]], [1, 0])
    targets = TASK.target(one, (64, 64), DECODING)
    assert targets["classes"].dtype == np.int32
    assert targets["classes"][5] == 1
    assert targets["classes"][10] == 0
    np.testing.assert_allclose(targets["regressions"][5], 0, atol=1e-5)
    expected = [0, 0, np.log(2) / 0.2, 0]
    np.testing.assert_allclose(targets["regressions"][10], expected, atol=1e-5)
    assert set(targets["classes"].tolist()) == {0, 1, NOTHING}


def test_of_a_box_the_part_in_the_image_is_learned() -> None:
    """It reaches beyond the image, where the object next to it is altogether."""
    targets = TASK.target(
        sample([[-50, -50, 10, 20], [-50, 0, -10, 20]], [1, 0]), (64, 64), DECODING
    )
    assert np.flatnonzero(targets["classes"] >= 0).tolist() == [0]
    np.testing.assert_allclose(targets["regressions"][0], 0, atol=1e-5)


def test_a_box_without_area_is_not_learned() -> None:
    targets = TASK.target(sample([[10, 20, 10, 40]], [1]), (64, 64), DECODING)
    assert (targets["classes"] == NOTHING).all()


def test_what_lies_in_a_group_is_ignored() -> None:
    targets = TASK.target(sample([[0, 0, 20, 80]], [1], [True]), (64, 64), DECODING)
    assert np.flatnonzero(targets["classes"] == IGNORED).tolist() == [0, 1, 4, 5, 8, 9, 12, 13]


def test_an_image_without_objects_has_targets() -> None:
    assert (TASK.target(sample([], []), (64, 64), DECODING)["classes"] == NOTHING).all()


def test_a_network_that_has_learned_its_targets_finds_every_object() -> None:
    pytest.importorskip("pycocotools")
    layout = AnchorLayout(AnchorGenerator((1.0,), (1.0,)), ((32, 32), (16, 16), (8, 8)))
    decoding = {**DECODING, "anchors": layout.to_json()}
    evaluator = TASK.evaluator(decoding)
    for scene in SyntheticScenes(6, (128, 128)):
        outputs = perfect_outputs(TASK.target(scene, (128, 128), decoding), 3)
        evaluator.update(TASK.decode(outputs, decoding), scene)
    metrics = evaluator.result()["metrics"]
    assert set(metrics) == {metric.name for metric in TASK.metrics}
    assert metrics["map"] > 0.99


def test_decoding_by_hand() -> None:
    outputs = {
        "classifications": np.full((1, 16, 2), -9, np.float32),
        "regressions": np.zeros((1, 16, 4), np.float32),
    }
    outputs["classifications"][0, 6, 1] = 0.0
    outputs["classifications"][0, 9, 0] = np.log(3)
    found = TASK.decode(outputs, DECODING)
    np.testing.assert_allclose(
        found["boxes"], [[0.25, 0.5, 0.5, 0.75], [0.5, 0.25, 0.75, 0.5]], atol=1e-6
    )
    np.testing.assert_allclose(found["scores"], [0.75, 0.5], atol=1e-6)
    assert found["classes"].tolist() == [0, 1]


def test_outputs_of_other_anchors_are_refused() -> None:
    outputs = {
        "classifications": np.zeros((1, 15, 2), np.float32),
        "regressions": np.zeros((1, 15, 4), np.float32),
    }
    with pytest.raises(EdgeheadsError, match="classifications has 15 rows for 16 anchors"):
        TASK.decode(outputs, DECODING)


def test_labels_decide_the_number_of_classes() -> None:
    assert TASK.head_options(NAMES) == {"num_classes": 2}
    assert TASK.labels(NAMES) == ("cat", "dog")
    with pytest.raises(EdgeheadsError, match="names no classes of objects"):
        TASK.head_options(LabelNames())


def test_a_sample_without_boxes_or_with_broken_ones_is_refused() -> None:
    with pytest.raises(EdgeheadsError, match="photo has no objects with boxes"):
        TASK.check(Sample(np.zeros((1, 1, 3), np.uint8), "photo"))
    with pytest.raises(EdgeheadsError, match="by hand has boxes with NaN"):
        TASK.check(sample([[0, 0, np.nan, 1]], [0]))
    TASK.check(sample([], []))


def test_typical_boxes_are_the_means_of_clusters_with_their_frequency() -> None:
    boxes = np.array([[0.1, 0.2, 0.9, 0.8], [0.5, 0.5, 0.6, 0.6]], np.float32)
    many = np.concatenate([np.tile(boxes[:1], (30, 1)), np.tile(boxes[1:], (10, 1))])
    typical = typical_boxes(many, np.repeat(np.array([1, 0], np.int32), [30, 10]), images=20)
    np.testing.assert_allclose(typical["boxes"], boxes[[1, 0]], atol=1e-6)
    assert typical["scores"] == [0.5, 1.0]
    assert typical["classes"] == [0, 1]


def test_more_boxes_than_clusters_are_averaged() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.5, (200, 2))
    boxes = np.concatenate([low, low + 0.2], axis=1).astype(np.float32)
    typical = typical_boxes(boxes, np.zeros(200, np.int32), images=200)
    assert len(typical["boxes"]) == 10
    assert sum(typical["scores"]) == pytest.approx(1)
    mean = np.average(typical["boxes"], axis=0, weights=typical["scores"])
    np.testing.assert_allclose(mean, boxes.mean(axis=0), atol=1e-5)


def test_baseline_says_the_same_of_every_image_and_groups_do_not_count() -> None:
    samples = [sample([[0, 0, 20, 40]], [1]), sample([[0, 0, 40, 80]], [0], [True])]
    baseline = TASK.baseline(samples, NAMES)
    assert baseline["kind"] == "most typical boxes of the training set"
    prediction = TASK.predict_baseline(baseline, (5, 5))
    np.testing.assert_allclose(prediction["boxes"], [[0, 0, 0.5, 0.5]])
    assert prediction["classes"].tolist() == [1]
    assert prediction["scores"].tolist() == [0.5]


def test_baseline_of_images_without_objects_finds_nothing() -> None:
    prediction = TASK.predict_baseline(TASK.baseline([sample([], [])], NAMES), (5, 5))
    assert prediction["boxes"].shape == (0, 4)
    assert prediction["scores"].shape == prediction["classes"].shape == (0,)


def test_a_drawing_shows_good_boxes_in_their_class_colour() -> None:
    image = np.full((101, 201, 3), 40, np.uint8)
    prediction = {
        "boxes": np.array([[0.1, 0.5, 0.4, 0.9], [0.6, 0.5, 0.9, 0.9]], np.float32),
        "scores": np.array([0.9, 0.2], np.float32),
        "classes": np.array([1, 0]),
    }
    drawn = TASK.draw(image, prediction, NAMES.classes)
    np.testing.assert_array_equal(drawn[:, :201], image)
    panel = drawn[:, 209:]
    assert panel.shape == image.shape
    assert tuple(panel[50, 50]) == class_color(1)
    assert tuple(panel[70, 20]) == class_color(1)
    assert (panel[:, 110:] == 40).all()


def test_a_label_is_drawn_where_it_is_at_any_size_and_groups_in_grey() -> None:
    one = sample([[10, 40, 30, 70], [0, 0, 5, 8]], [1, 0], [False, True])
    drawn = TASK.draw_label(np.zeros((161, 81, 3), np.uint8), one, NAMES)
    assert tuple(drawn[120, 20]) == class_color(1)
    assert tuple(drawn[16, 5]) == (160, 160, 160)


def test_a_graph_gives_the_anchors_of_its_head() -> None:
    pytest.importorskip("tensorflow")
    from edgeheads.backbones import create_backbone
    from edgeheads.heads import create_vision_head
    from edgeheads.model import build_model

    options = {"num_anchors": 2, "anchor_scales": [1.5], "anchor_ratios": [1.0, 2.0]}
    backbone = create_backbone("tiny", (64, 96, 3))
    head = create_vision_head("detection", name="detection", num_classes=3, hidden_dim=8, **options)
    task = get_task("detection", options)
    model = build_model(backbone, head)
    outputs, decoding = task.edge_outputs(model, "detection")
    assert set(outputs) == {"classifications", "regressions"}
    grids = [(64 // level.stride, 96 // level.stride) for level in backbone.pyramid.values()]
    expected = head.anchors.boxes(grids)
    layout = AnchorLayout.from_json(decoding["anchors"])
    np.testing.assert_array_equal(layout.boxes, expected)
    with pytest.raises(EdgeheadsError, match="classifications has"):
        get_task("detection").edge_outputs(model, "detection")


def test_using_a_bundle_imports_no_framework() -> None:
    code = (
        "import sys; from edgeheads.tasks import get_task;"
        "task, other = get_task('detection'), get_task('instance-segmentation');"
        "task.evaluator({}); other.evaluator({});"
        "sys.exit(bool({'keras', 'tensorflow', 'jax'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
