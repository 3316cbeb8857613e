"""Average precision, by hand."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from edgeheads.data.sample import Objects, Sample
from edgeheads.errors import EdgeheadsError, MissingDependencyError
from edgeheads.tasks.coco_metrics import CocoEvaluator

_BOXES = {"map": ("bbox", "AP"), "ap50": ("bbox", "AP50"), "ap75": ("bbox", "AP75"),
          "ar": ("bbox", "AR")}  # fmt: skip
_SIDE = 100


@pytest.fixture(autouse=True)
def _needs_pycocotools() -> None:
    pytest.importorskip("pycocotools")


def sample(
    *boxes: tuple[float, ...],
    classes: list[int] | None = None,
    crowd: list[bool] | None = None,
    masks: np.ndarray | None = None,
) -> Sample:
    """An image of 100 by 100 pixels with boxes in pixels."""
    objects = Objects(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(classes or [0] * len(boxes), np.int32),
        np.array(crowd or [False] * len(boxes), bool),
        masks,
    )
    return Sample(np.zeros((_SIDE, _SIDE, 3), np.uint8), "by hand", objects=objects)


def found(*boxes: tuple[float, ...], scores: list[float], classes: list[int] | None = None) -> Any:
    """A prediction of boxes in pixels of such an image."""
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4) / _SIDE,
        "scores": np.array(scores, np.float32),
        "classes": np.array(classes or [0] * len(boxes), np.int64),
    }


def score(*pairs: tuple[Any, Sample]) -> dict[str, float]:
    evaluator = CocoEvaluator(_BOXES)
    for prediction, truth in pairs:
        evaluator.update(prediction, truth)
    return evaluator.result()["metrics"]


_A, _B = (0, 0, 10, 10), (50, 50, 90, 90)


def test_all_found_is_one() -> None:
    metrics = score((found(_A, _B, scores=[0.9, 0.1]), sample(_A, _B)))
    assert metrics == pytest.approx({"map": 1, "ap50": 1, "ap75": 1, "ar": 1})


def test_an_overlap_counts_at_the_thresholds_below_it() -> None:
    """8.1 of 10 rows: IoU 0.81, found at 0.50 to 0.80, which are 7 of 10 thresholds."""
    metrics = score((found((0, 0, 10, 8.1), scores=[0.9]), sample(_A)))
    assert metrics == pytest.approx({"map": 0.7, "ap50": 1, "ap75": 1, "ar": 0.7})


def test_one_of_two_missed_is_half_of_the_recall() -> None:
    """Precision is 1 at the recalls 0.00 to 0.50, which are 51 of the 101 that COCO averages."""
    metrics = score((found(_A, scores=[0.9]), sample(_A, _B)))
    assert metrics == pytest.approx(
        {"map": 51 / 101, "ap50": 51 / 101, "ap75": 51 / 101, "ar": 0.5}
    )


@pytest.mark.parametrize(("of_wrong", "expected"), [(0.95, 0.5), (0.5, 1.0)])
def test_a_wrong_box_costs_where_it_scores_higher(of_wrong: float, expected: float) -> None:
    metrics = score((found(_A, _B, scores=[0.9, of_wrong]), sample(_A)))
    assert metrics["map"] == pytest.approx(expected)


def test_a_wrong_box_on_an_image_without_objects_is_wrong() -> None:
    metrics = score((found(_A, scores=[0.5]), sample(_A)), (found(_B, scores=[0.9]), sample()))
    assert metrics["map"] == pytest.approx(0.5)


def test_nothing_found_is_zero() -> None:
    metrics = score((found(scores=[]), sample(_A)))
    assert metrics == {"map": 0, "ap50": 0, "ap75": 0, "ar": 0}


def test_finding_the_first_object_of_all_counts() -> None:
    """pycocotools takes an object of number 0 for none."""
    assert score((found(_A, scores=[0.9]), sample(_A)))["map"] == pytest.approx(1)


def test_a_group_is_neither_missed_nor_wrong_to_find() -> None:
    truth = sample(_A, _B, crowd=[False, True])
    inside = (60, 60, 70, 70)
    assert score((found(_A, scores=[0.5]), truth))["map"] == pytest.approx(1)
    metrics = score((found(_A, inside, inside, scores=[0.5, 0.9, 0.8]), truth))
    assert metrics["map"] == pytest.approx(1)


def test_classes_are_averaged_over_those_that_the_labels_have() -> None:
    """Class 0 is found, class 2 is called 3, of which there is none."""
    prediction = found(_A, _B, scores=[0.9, 0.9], classes=[0, 3])
    assert score((prediction, sample(_A, _B, classes=[0, 2])))["map"] == pytest.approx(0.5)


def test_boxes_are_measured_at_the_size_of_the_label() -> None:
    wide = Sample(np.zeros((50, 200, 3), np.uint8), "wide", objects=sample((0, 0, 20, 5)).objects)
    prediction = {**found(scores=[]), "boxes": np.array([[0, 0, 0.1, 0.1]], np.float32)}
    prediction |= {"scores": np.ones(1, np.float32), "classes": np.zeros(1, np.int64)}
    assert score((prediction, wide))["map"] == pytest.approx(1)


def test_masks_are_measured_where_they_are_asked_for() -> None:
    """The object is 62 of the 100 columns of its box: a full mask has IoU 0.62."""
    mask = np.zeros((1, _SIDE, _SIDE), bool)
    mask[:, :, :62] = True
    evaluator = CocoEvaluator({"mask": ("segm", "AP"), "box": ("bbox", "AP")})
    prediction = found((0, 0, _SIDE, _SIDE), scores=[0.9]) | {"mask_logits": np.ones((1, 2, 2))}
    evaluator.update(prediction, sample((0, 0, _SIDE, _SIDE), masks=mask))
    assert evaluator.result()["metrics"] == pytest.approx({"mask": 0.3, "box": 1})


def test_the_order_of_images_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for count in (3, 0, 5, 1):
        low = rng.uniform(0, 60, (count, 2))
        boxes = np.concatenate([low, low + rng.uniform(10, 40, (count, 2))], 1)
        noisy = [tuple(box) for box in boxes + rng.normal(0, 2, boxes.shape)]
        scores = rng.random(count).tolist()
        pairs.append((found(*noisy, scores=scores), sample(*[tuple(box) for box in boxes])))
    metrics = score(*pairs)
    assert 0 < metrics["map"] < 1
    assert score(*reversed(pairs)) == metrics


def test_counts_and_ranges() -> None:
    evaluator = CocoEvaluator(_BOXES)
    evaluator.update(found(_A, _B, scores=[0.9, 0.25]), sample(_A, _B, crowd=[False, True]))
    evaluator.update(found(scores=[]), sample())
    result = evaluator.result()
    assert result["counts"] == {"images": 2, "objects": 1, "crowd_objects": 1, "detections": 2}
    assert result["ranges"]["objects_per_image"] == [0, 1]
    assert result["ranges"]["score"] == pytest.approx([0.25, 0.9])


def test_a_result_can_be_asked_for_twice() -> None:
    evaluator = CocoEvaluator(_BOXES)
    evaluator.update(found(_A, scores=[0.9]), sample(_A, _B))
    assert evaluator.result() == evaluator.result()


def test_no_object_at_all_is_an_error_not_a_number() -> None:
    evaluator = CocoEvaluator(_BOXES)
    evaluator.update(found(_A, scores=[0.9]), sample(_B, crowd=[True]))
    with pytest.raises(EdgeheadsError, match="none of 1 images has an object that counts"):
        evaluator.result()


def test_nan_is_an_error_not_a_miss() -> None:
    with pytest.raises(EdgeheadsError, match="NaN or infinite boxes on by hand"):
        CocoEvaluator(_BOXES).update(found(_A, scores=[np.nan]), sample(_A))


def test_masks_cannot_be_measured_against_boxes() -> None:
    with pytest.raises(EdgeheadsError, match="by hand has no masks of objects to evaluate"):
        CocoEvaluator({"map": ("segm", "AP")}).update(found(_A, scores=[1.0]), sample(_A))


def test_without_pycocotools_the_text_names_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "edgeheads\[metrics\]"'):
        CocoEvaluator(_BOXES)
