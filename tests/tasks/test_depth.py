"""The depth task: metrics worked by hand, decoding, the baseline, the picture."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeheads.data.sample import LabelNames, Sample
from edgeheads.data.synthetic import SyntheticScenes
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks import get_task
from edgeheads.tasks.depth import DepthEvaluator

TASK = get_task("depth")


def sample(depth: list[list[float]]) -> Sample:
    array = np.array(depth, np.float32)
    return Sample(np.zeros((*array.shape, 3), np.uint8), "by hand", depth=array)


def prediction(depth: list[list[float]]) -> dict[str, np.ndarray]:
    return {"depth": np.array(depth, np.float32)}


def test_metrics_by_hand() -> None:
    """Ratios 1.2, 1.5, 1.9, 2.5: one each below 1.25, 1.25^2, 1.25^3, and above."""
    evaluator = DepthEvaluator()
    evaluator.update(prediction([[1.2, 3.0], [1.0, 2.5]]), sample([[1.0, 2.0], [1.9, 1.0]]))
    result = evaluator.result()
    errors = np.array([0.2, 1.0, -0.9, 1.5])
    assert result["metrics"] == pytest.approx(
        {
            "abs_rel": (0.2 + 0.5 + 0.9 / 1.9 + 1.5) / 4,
            "sq_rel": (0.04 + 0.5 + 0.81 / 1.9 + 2.25) / 4,
            "rmse": math.sqrt(np.mean(errors**2)),
            "rmse_log": math.sqrt(np.mean(np.log([1.2, 1.5, 1.9, 2.5]) ** 2)),
            "delta1": 0.25,
            "delta2": 0.5,
            "delta3": 0.75,
        },
        rel=1e-5,
    )
    assert result["counts"] == {"images": 1, "images_left_out": 0, "pixels": 4}
    assert result["ranges"]["label_m"] == pytest.approx([1.0, 2.0])
    assert result["ranges"]["prediction_m"] == pytest.approx([1.0, 3.0])


def test_pixels_without_reading_or_out_of_range_do_not_count() -> None:
    evaluator = DepthEvaluator(0.5, 10.0)
    evaluator.update(prediction([[2.0, 99.0, 99.0, 99.0]]), sample([[2.0, 0.0, 0.4, 11.0]]))
    assert evaluator.result()["metrics"]["abs_rel"] == 0
    assert evaluator.result()["counts"]["pixels"] == 1


def test_images_weigh_alike_whatever_their_readings() -> None:
    evaluator = DepthEvaluator()
    evaluator.update(prediction([[2.0, 2.0, 2.0]]), sample([[1.0, 1.0, 1.0]]))
    evaluator.update(prediction([[1.0, 9.0, 9.0]]), sample([[1.0, 0.0, 0.0]]))
    assert evaluator.result()["metrics"]["abs_rel"] == 0.5


def test_image_without_readings_is_left_out_and_counted() -> None:
    evaluator = DepthEvaluator()
    evaluator.update(prediction([[1.0]]), sample([[0.0]]))
    with pytest.raises(EdgeheadsError, match="none of 1 images has a depth reading between"):
        evaluator.result()
    evaluator.update(prediction([[1.0]]), sample([[1.0]]))
    assert evaluator.result()["counts"] == {"images": 1, "images_left_out": 1, "pixels": 1}


def test_nan_prediction_is_an_error_not_a_number() -> None:
    with pytest.raises(EdgeheadsError, match="NaN or infinite depth on by hand"):
        DepthEvaluator().update(prediction([[math.nan]]), sample([[1.0]]))


def test_depth_of_zero_is_wrong_by_a_finite_ratio() -> None:
    evaluator = DepthEvaluator()
    evaluator.update(prediction([[0.0]]), sample([[1.0]]))
    metrics = evaluator.result()["metrics"]
    assert metrics["delta3"] == 0
    assert metrics["sq_rel"] == 1
    assert metrics["rmse_log"] == pytest.approx(9 * math.log(10))


def test_prediction_is_resized_to_the_label() -> None:
    evaluator = DepthEvaluator()
    evaluator.update(prediction([[3.0]]), sample([[3.0, 3.0], [3.0, 3.0]]))
    assert evaluator.result()["metrics"]["abs_rel"] == 0


@pytest.mark.parametrize(
    ("decoding", "expected"),
    [
        ({"encoding": "log", "min_depth": 0.5, "max_depth": 8.0}, [0.5, 2.0, 8.0]),
        ({"encoding": "linear", "min_depth": 0.5, "max_depth": 8.5}, [0.5, 4.5, 8.5]),
    ],
)
def test_code_becomes_metres(decoding: dict[str, object], expected: list[float]) -> None:
    outputs = {
        "depth_code": np.array([0.0, 0.5, 1.0], np.float32).reshape(1, 1, 3, 1),
        "confidence": np.array([0.1, 0.2, 0.3], np.float32).reshape(1, 1, 3, 1),
    }
    decoded = TASK.decode(outputs, decoding)
    np.testing.assert_allclose(decoded["depth"], [expected], rtol=1e-6)
    np.testing.assert_allclose(decoded["confidence"], [[0.1, 0.2, 0.3]], rtol=1e-6)


def test_metres_pass_through() -> None:
    decoded = TASK.decode({"depth": np.full((1, 2, 2, 1), 7.0)}, {"encoding": "metres"})
    assert decoded["depth"].tolist() == [[7.0, 7.0], [7.0, 7.0]]
    assert "confidence" not in decoded


def test_baseline_is_the_median_of_the_readings() -> None:
    baseline = TASK.baseline([sample([[0.0, 1.0, 2.0]]), sample([[3.0, 9.0, 0.0]])], LabelNames())
    assert baseline == {"kind": "median depth of the training set", "depth": 2.5}
    assert TASK.predict_baseline(baseline, (1, 2))["depth"].tolist() == [[2.5, 2.5]]


def test_sample_without_depth_is_refused() -> None:
    with pytest.raises(EdgeheadsError, match="photo has no depth map, which task 'depth' needs"):
        TASK.check(Sample(np.zeros((1, 1, 3), np.uint8), "photo"))


def test_target_keeps_metres_and_invents_none() -> None:
    depth = np.array([[1.0, 0.0], [3.0, 4.0]], np.float32)
    target = TASK.target(Sample(np.zeros((2, 2, 3), np.uint8), "x", depth=depth), (4, 4), {})[
        "depth"
    ]
    assert target.shape == (4, 4, 1)
    assert set(np.unique(target)) == {0.0, 1.0, 3.0, 4.0}


def test_drop_is_relative_for_abs_rel_and_absolute_for_delta() -> None:
    abs_rel, delta1 = (next(m for m in TASK.metrics if m.name == n) for n in ("abs_rel", "delta1"))
    assert abs_rel.drop(0.2, 0.21) == pytest.approx(0.05)
    assert delta1.drop(0.9, 0.88) == pytest.approx(0.02)
    assert delta1.drop(0.9, 0.95) < 0


def test_drawing_shows_near_brighter_than_far_beside_the_image() -> None:
    scene = SyntheticScenes(1, (64, 64))[0]
    assert scene.depth is not None
    drawn = TASK.draw(scene.image, {"depth": scene.depth})
    np.testing.assert_array_equal(drawn[:, :64], scene.image)
    panel = drawn[:, 72:136].mean(axis=-1)
    assert np.corrcoef(panel.ravel(), np.log(scene.depth).ravel())[0, 1] < -0.95
