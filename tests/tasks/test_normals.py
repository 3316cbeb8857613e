"""The normals task: angles worked by hand, decoding, the baseline, the picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgeheads.data.sample import LabelNames, Sample
from edgeheads.data.synthetic import SyntheticScenes
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks import get_task
from edgeheads.tasks.normals import NormalsEvaluator

TASK = get_task("normals")
Vector = tuple[float, float, float]
RIGHT, DOWN, UP, FACING = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)
UNDEFINED = (0.0, 0.0, 0.0)


def turned(degrees: float) -> Vector:
    """The normal of a surface that is turned away from the camera."""
    return math.sin(math.radians(degrees)), 0.0, -math.cos(math.radians(degrees))


def row(*normals: Vector) -> np.ndarray:
    return np.array([normals], np.float32)


def sample(*normals: Vector) -> Sample:
    return Sample(np.zeros((1, len(normals), 3), np.uint8), "by hand", normals=row(*normals))


def scored(*cases: tuple[np.ndarray, Sample]) -> dict[str, Any]:
    evaluator = NormalsEvaluator()
    for normals, labelled in cases:
        evaluator.update({"normals": normals}, labelled)
    return evaluator.result()


def test_metrics_by_hand() -> None:
    """Angles of 5, 15, 25, 28 and 100 degrees."""
    angles = (5, 15, 25, 28, 100)
    result = scored((row(*[FACING] * 5), sample(*(turned(angle) for angle in angles))))
    metrics = result["metrics"]
    assert metrics["mean_angle"] == pytest.approx(173 / 5, abs=1e-4)
    assert metrics["median_angle"] == pytest.approx(25, abs=0.0251)
    assert [metrics[f"within_{limit}"] for limit in (11, 22, 30)] == [0.2, 0.4, 0.8]
    assert result["counts"] == {"images": 1, "images_left_out": 0, "pixels": 5}
    assert result["ranges"]["angle_deg"] == pytest.approx([5, 100], abs=1e-4)


def test_metrics_are_those_of_the_table() -> None:
    result = scored((row(FACING), sample(FACING)))
    assert list(result["metrics"]) == [metric.name for metric in TASK.metrics]


def test_perfect_prediction_has_no_angle() -> None:
    scene = SyntheticScenes(1, (32, 32))[0]
    metrics = scored((scene.normals, scene))["metrics"]
    assert metrics["mean_angle"] < 1e-3
    assert metrics["median_angle"] == 0.025
    assert metrics["within_11"] == 1


def test_pixels_of_all_images_weigh_alike() -> None:
    """Three pixels of 30 degrees in one image and one of 90 in another: not (30 + 90) / 2."""
    result = scored(
        (row(*[FACING] * 3), sample(*[turned(30)] * 3)), (row(FACING), sample(turned(90)))
    )
    assert result["metrics"]["mean_angle"] == pytest.approx(45, abs=1e-4)
    assert result["metrics"]["median_angle"] == pytest.approx(30, abs=0.0251)


def test_median_of_many_images_is_that_of_their_pixels() -> None:
    rng = np.random.default_rng(0)
    angles = rng.gamma(2, 12, 4001)
    evaluator = NormalsEvaluator()
    for part in np.array_split(angles, 37):
        evaluator.update({"normals": row(*[FACING] * len(part))}, sample(*map(turned, part)))
    metrics = evaluator.result()["metrics"]
    assert metrics["median_angle"] == pytest.approx(np.median(angles), abs=0.03)
    assert metrics["mean_angle"] == pytest.approx(angles.mean(), abs=1e-3)
    assert metrics["within_22"] == (angles < 22.5).mean()


def test_opposite_normals_are_180_degrees_apart() -> None:
    result = scored((row(DOWN), sample(UP)))
    assert result["metrics"]["mean_angle"] == pytest.approx(180)
    assert result["metrics"]["median_angle"] == pytest.approx(179.975)


def test_pixels_without_a_normal_do_not_count() -> None:
    result = scored((row(FACING, FACING), sample(UNDEFINED, FACING)))
    assert result["counts"]["pixels"] == 1
    assert result["metrics"]["mean_angle"] == pytest.approx(0, abs=1e-5)


def test_image_without_normals_is_left_out_and_counted() -> None:
    evaluator = NormalsEvaluator()
    evaluator.update({"normals": row(FACING)}, sample(UNDEFINED))
    with pytest.raises(EdgeheadsError, match="none of 1 images has a normal"):
        evaluator.result()
    evaluator.update({"normals": row(FACING)}, sample(FACING))
    assert evaluator.result()["counts"] == {"images": 1, "images_left_out": 1, "pixels": 1}


def test_prediction_is_resized_to_the_label_and_made_unit() -> None:
    """Half way between right and facing the vector is short, and its direction counts."""
    result = scored((row(RIGHT, FACING), sample(RIGHT, turned(67.5), turned(22.5), FACING)))
    # At 1/4 and 3/4 of the way the direction is atan(1/3) from the nearer end.
    off = abs(22.5 - math.degrees(math.atan(1 / 3)))
    assert result["metrics"]["mean_angle"] == pytest.approx(off / 2, abs=1e-3)


def test_nan_prediction_is_an_error_not_a_number() -> None:
    with pytest.raises(EdgeheadsError, match="NaN or infinite normals on by hand"):
        scored((row((math.nan, 0, 0)), sample(FACING)))


def test_vectors_become_unit_normals() -> None:
    vectors = row((3, 0, -4), UNDEFINED, (0, -7, 0))[None]
    normals = TASK.decode({"vectors": vectors}, {})["normals"]
    np.testing.assert_allclose(normals, row((0.6, 0, -0.8), FACING, UP), atol=1e-6)


def test_baseline_is_the_mean_normal_of_each_cell() -> None:
    """A floor below and a wall above; in the last column nothing is labelled."""
    normals = np.zeros((16, 16, 3), np.float32)
    normals[:8], normals[8:] = FACING, UP
    normals[0] = RIGHT
    normals[:, 14:] = UNDEFINED
    labelled = Sample(np.zeros((16, 16, 3), np.uint8), "room", normals=normals)
    baseline = TASK.baseline([labelled], LabelNames())
    assert baseline["kind"] == "mean normal in 8x8 cells"
    predicted = TASK.predict_baseline(baseline, (32, 32))["normals"]
    assert predicted.shape == (32, 32, 3)
    half = math.sqrt(0.5)
    np.testing.assert_allclose(predicted[0, 0], (half, 0, -half), atol=1e-6)
    np.testing.assert_allclose(predicted[12, 5], FACING, atol=1e-6)
    np.testing.assert_allclose(predicted[16, 5], UP, atol=1e-6)
    everywhere = np.array((1, -8, -7)) / math.sqrt(114)
    np.testing.assert_allclose(predicted[12, 31], everywhere, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(predicted, axis=-1), 1, atol=1e-6)


def test_baseline_takes_images_smaller_than_its_grid() -> None:
    baseline = TASK.baseline([sample(RIGHT, UP)], LabelNames())
    predicted = TASK.predict_baseline(baseline, (1, 2))["normals"]
    assert np.isfinite(predicted).all()


def test_grid_beats_a_constant_on_rooms() -> None:
    train, test = SyntheticScenes(40, (32, 32)), SyntheticScenes(20, (32, 32), split="test")
    baseline = TASK.baseline(train, LabelNames())
    constant = {**baseline, "normals": [[np.mean(baseline["normals"], axis=(0, 1)).tolist()]]}
    angles = []
    for one in (baseline, constant):
        evaluator = TASK.evaluator({})
        for scene in test:
            evaluator.update(TASK.predict_baseline(one, (32, 32)), scene)
        angles.append(evaluator.result()["metrics"]["mean_angle"])
    assert angles[0] < angles[1] - 5


@pytest.mark.parametrize(
    ("normals", "words"),
    [
        (None, "has no normals, which task 'normals' needs"),
        (row(UNDEFINED), "has a normal at none of its pixels"),
        (row((0, 0, -0.5)), "of length 1, or 0 where undefined, received one of length 0.500"),
        (row((math.nan, 0, 1)), "received one of length nan"),
        (row(FACING, FACING), r"image's size \(1, 1, 3\), received \(1, 2, 3\)"),
    ],
)
def test_wrong_labels_are_refused(normals: np.ndarray | None, words: str) -> None:
    with pytest.raises(EdgeheadsError, match=words):
        TASK.check(Sample(np.zeros((1, 1, 3), np.uint8), "photo", normals=normals))


def test_target_invents_no_normals() -> None:
    target = TASK.target(sample(RIGHT, UNDEFINED), (2, 4), {})["normals"]
    assert target.shape == (2, 4, 3)
    assert {tuple(normal) for normal in target.reshape(-1, 3)} == {RIGHT, UNDEFINED}


def test_colours_of_directions() -> None:
    """Right is red, up is green, to the camera is blue; halves of 255 elsewhere."""
    drawn = TASK.draw(np.zeros((1, 3, 3), np.uint8), {"normals": row(RIGHT, UP, FACING)})
    assert drawn[0, -3:].tolist() == [[255, 128, 128], [128, 255, 128], [128, 128, 255]]


def test_label_is_drawn_black_where_undefined() -> None:
    image = np.zeros((2, 4, 3), np.uint8)
    drawn = TASK.draw_label(image, sample(UNDEFINED, FACING), LabelNames())
    assert drawn.shape == image.shape
    assert drawn[0].tolist() == [[0, 0, 0]] * 2 + [[128, 128, 255]] * 2


def test_model_of_another_maker() -> None:
    keras = pytest.importorskip("keras")
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, {"any": keras.layers.Conv2D(3, 1)(image)})
    outputs, _ = TASK.edge_outputs(model, "normals")
    assert list(outputs) == ["vectors"]
    wrong = keras.Model(image, keras.layers.Conv2D(1, 1)(image))
    with pytest.raises(EdgeheadsError, match=r"\[B, H, W, 3\], received \[\(None, 8, 8, 1\)\]"):
        TASK.edge_outputs(wrong, "normals")
