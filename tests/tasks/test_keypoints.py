"""The keypoints task: metrics worked by hand, decoding, the baseline, the picture."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeheads.data.sample import LabelNames, Sample
from edgeheads.data.synthetic import SyntheticScenes
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks import get_task
from edgeheads.tasks.drawing import class_color
from edgeheads.tasks.keypoints import KeypointEvaluator, average_precision, keypoint_similarity

TASK = get_task("keypoints")
NAMES = LabelNames(keypoints=("left eye", "right eye"), mirrored_keypoints=((0, 1),))


def sample(
    *keypoints: tuple[float, float, int], size: tuple[int, int] = (100, 200), **more
) -> Sample:
    array = np.array(keypoints, np.float32).reshape(-1, 3)
    return Sample(np.zeros((*size, 3), np.uint8), "by hand", keypoints=array, **more)


def prediction(*points: tuple[float, float, float]) -> dict[str, np.ndarray]:
    return {"keypoints": np.array(points, np.float32)}


def test_metrics_by_hand() -> None:
    """Of an object of scale 50: errors of 2 px (4 %) and 5 px (10 %), one point not labelled."""
    evaluator = KeypointEvaluator(3)
    evaluator.update(
        prediction((0.11, 0.5, 0.9), (0.5, 0.55, 0.9), (0.9, 0.9, 0.9)),
        sample((20, 50, 2), (100, 50, 1), (0, 0, 0), keypoint_scale=50.0),
    )
    result = evaluator.result()
    similarity = (math.exp(-(0.04**2) / 0.02) + math.exp(-(0.1**2) / 0.02)) / 2
    assert similarity == pytest.approx(0.7648, abs=1e-4)
    # OKS 0.76 reaches the thresholds 0.50 to 0.75: six of ten.
    assert result["metrics"] == pytest.approx({"pck": 0.5, "nme": 7.0, "oks_ap": 0.6}, rel=1e-5)
    assert result["counts"] == {
        "images": 1,
        "images_left_out": 0,
        "images_measured_by_their_own_size": 0,
        "keypoints": 2,
    }
    assert result["per_keypoint"]["nme"] == [
        pytest.approx(4, rel=1e-4),
        pytest.approx(10, rel=1e-4),
        None,
    ]
    assert result["ranges"]["error_percent"] == pytest.approx([4, 10], rel=1e-4)


def test_without_an_object_the_image_is_the_scale() -> None:
    evaluator = KeypointEvaluator(1)
    evaluator.update(prediction((0.5, 0.5, 1)), sample((110, 50, 2), size=(100, 200)))
    result = evaluator.result()
    assert result["metrics"]["nme"] == pytest.approx(10 / math.sqrt(20000) * 100)
    assert result["counts"]["images_measured_by_their_own_size"] == 1


def test_nme_is_a_mean_of_images_and_pck_of_keypoints() -> None:
    evaluator = KeypointEvaluator(2)
    far, near = (0.5, 0.5, 1), (0.1, 0.5, 1)
    evaluator.update(prediction(near, near), sample((20, 50, 2), (20, 50, 2), keypoint_scale=100.0))
    evaluator.update(prediction(far, far), sample((80, 50, 2), (0, 0, 0), keypoint_scale=100.0))
    metrics = evaluator.result()["metrics"]
    assert metrics["pck"] == pytest.approx(2 / 3)
    assert metrics["nme"] == pytest.approx((0 + 20) / 2, rel=1e-5)


def test_image_without_a_labelled_keypoint_is_left_out_and_counted() -> None:
    evaluator = KeypointEvaluator(1)
    evaluator.update(prediction((0.5, 0.5, 1)), sample((0, 0, 0)))
    with pytest.raises(EdgeheadsError, match="none of 1 images has a labelled keypoint"):
        evaluator.result()
    evaluator.update(prediction((0.5, 0.5, 1)), sample((100, 50, 2)))
    counts = evaluator.result()["counts"]
    assert (counts["images"], counts["images_left_out"]) == (1, 1)


def test_the_order_of_images_makes_no_difference_where_scores_differ() -> None:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(12):
        points = rng.uniform(0.2, 0.8, (3, 3))
        truth = points * (200, 100, 1) + rng.normal(scale=4, size=(3, 3)) * (1, 1, 0)
        truth[:, 2] = (2, 1, rng.integers(0, 3))
        images.append(({"keypoints": points}, sample(*truth.tolist(), keypoint_scale=60.0)))
    one, other = KeypointEvaluator(3), KeypointEvaluator(3)
    for guess, truth in images:
        one.update(guess, truth)
    for guess, truth in reversed(images):
        other.update(guess, truth)
    assert one.result()["metrics"] == pytest.approx(other.result()["metrics"])
    assert 0 < one.result()["metrics"]["oks_ap"] < 1


def test_average_precision_by_hand() -> None:
    """By score: right, wrong, right, wrong. Precision 1 up to recall 1/4, 2/3 up to 1/2, then
    none: of the 101 recalls, 26 and 25."""
    scores = np.array([0.2, 0.9, 0.5, 0.7])
    hits = np.array([False, True, True, False])
    assert average_precision(scores, hits) == pytest.approx((26 * 1 + 25 * 2 / 3) / 101)
    assert average_precision(scores, np.ones(4, bool)) == 1
    assert average_precision(scores, np.zeros(4, bool)) == 0


def test_similarity_of_seventeen_points_uses_the_sigmas_of_coco() -> None:
    """At an error of twice a point's sigma, each similarity is exp(-1/2)."""
    sigmas = 2 * np.array([
        .26, .25, .25, .35, .35, .79, .79, .72, .72, .62, .62, 1.07, 1.07, .87, .87, .89, .89
    ]) / 10  # fmt: skip
    assert keypoint_similarity(sigmas[None]) == pytest.approx([math.exp(-0.5)])
    assert keypoint_similarity(np.full((1, 5), 0.1)) == pytest.approx([math.exp(-0.5)])


def test_similarity_leaves_out_what_is_not_labelled() -> None:
    assert keypoint_similarity(np.array([[0.1, math.nan]])) == pytest.approx([math.exp(-0.5)])


def test_oks_ap_is_that_of_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(3)
    evaluator = KeypointEvaluator(17)
    truths, guesses = [], []
    for number in range(1, 31):
        truth = np.column_stack([rng.uniform(20, 180, (17, 2)), rng.integers(0, 3, 17)])
        truth[0, 2] = 2
        guess = np.column_stack(
            [truth[:, :2] + rng.normal(scale=9, size=(17, 2)), [number / 30] * 17]
        )
        area = 5000.0
        evaluator.update(
            {"keypoints": guess / (200, 200, 1)},
            sample(*truth.tolist(), size=(200, 200), keypoint_scale=math.sqrt(area)),
        )
        truth[truth[:, 2] == 0] = 0
        common = {"image_id": number, "category_id": 1, "id": number}
        truths.append({
            **common, "keypoints": truth.ravel().tolist(), "area": area, "iscrowd": 0,
            "bbox": [0, 0, 200, 200], "num_keypoints": int((truth[:, 2] > 0).sum()),
        })  # fmt: skip
        guesses.append({**common, "keypoints": guess.ravel().tolist(), "score": number / 30})
    labels = coco.COCO()
    labels.dataset = {
        "images": [{"id": number} for number in range(1, 31)],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": truths,
        "info": {},
    }
    labels.createIndex()
    reference = COCOeval(labels, labels.loadRes(guesses), "keypoints")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    assert 0.05 < reference.stats[0] < 0.95
    assert evaluator.result()["metrics"]["oks_ap"] == pytest.approx(reference.stats[0], abs=1e-6)


def test_nan_prediction_is_an_error_not_a_number() -> None:
    with pytest.raises(EdgeheadsError, match="NaN or infinite keypoints on by hand"):
        KeypointEvaluator(1).update(prediction((math.nan, 0.5, 1)), sample((1, 1, 2)))


def test_another_number_of_keypoints_is_an_error() -> None:
    with pytest.raises(EdgeheadsError, match="by hand has 2 keypoints, the model predicts 1"):
        KeypointEvaluator(1).update(prediction((0.5, 0.5, 1)), sample((1, 1, 2), (2, 2, 2)))


def test_decoding_is_that_of_the_head() -> None:
    keras = pytest.importorskip("keras")
    from edgeheads.heads.keypoints import _decode

    rng = np.random.default_rng(0)
    heatmaps = rng.normal(size=(1, 5, 7, 6)).astype(np.float32) * 4
    offsets = rng.normal(size=(1, 5, 7, 12)).astype(np.float32) * 3
    heatmaps[0, ..., 0] = 1.0  # a tie everywhere
    heatmaps[0, 2, 3, 1] = 1e4  # exp of which no float holds
    heatmaps[0, ..., 2] = -1e4
    expected = keras.ops.convert_to_numpy(
        _decode(*map(keras.ops.convert_to_tensor, (heatmaps, offsets)))
    )[0]
    decoded = TASK.decode({"heatmaps": heatmaps, "offsets": offsets}, {})["keypoints"]
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, expected, atol=1e-6)


def test_what_the_loss_asks_for_decodes_to_the_label() -> None:
    keras = pytest.importorskip("keras")
    from edgeheads.training.losses.keypoints import cell_offsets, heatmaps

    truth = sample((31.3, 77.7, 2), (200, 100, 1), (0, 0, 2), (111.1, 50, 2))
    target = TASK.target(truth, (128, 128), {})["keypoints"][None]
    heat = keras.ops.convert_to_numpy(heatmaps(target, (16, 16)))
    shifts = keras.ops.convert_to_numpy(cell_offsets(target, (16, 16))[0])
    decoded = TASK.decode({"heatmaps": heat, "offsets": shifts.reshape(1, 16, 16, 8)}, {})
    evaluator = TASK.evaluator({"num_keypoints": 4})
    evaluator.update(decoded, truth)
    assert evaluator.result()["metrics"]["nme"] < 1e-4


def test_baseline_is_the_mean_of_the_labelled_positions() -> None:
    samples = [
        sample((20, 50, 2), (180, 50, 2), size=(100, 200)),
        sample((30, 10, 1), (0, 0, 0), size=(100, 100)),
    ]
    baseline = TASK.baseline(samples, NAMES)
    np.testing.assert_allclose(baseline["keypoints"], [[0.2, 0.3], [0.9, 0.5]], atol=1e-6)
    guess = TASK.predict_baseline(baseline, (100, 200))["keypoints"]
    np.testing.assert_allclose(guess, [[0.2, 0.3, 1], [0.9, 0.5, 1]], atol=1e-6)


def test_a_keypoint_that_is_never_labelled_is_guessed_in_the_middle() -> None:
    baseline = TASK.baseline([sample((20, 50, 2), (0, 0, 0))], NAMES)
    assert baseline["keypoints"][1] == [0.5, 0.5]


def test_labels_decide_the_number_of_keypoints() -> None:
    assert TASK.head_options(NAMES) == {"num_keypoints": 2}
    assert TASK.labels(NAMES) == NAMES.keypoints
    with pytest.raises(EdgeheadsError, match="needs labelled keypoints, the data has none"):
        TASK.head_options(LabelNames())
    with pytest.raises(EdgeheadsError, match="num_keypoints is 17, but the data has 2"):
        get_task("keypoints", {"num_keypoints": 17}).head_options(NAMES)


def test_sample_without_usable_keypoints_is_refused() -> None:
    with pytest.raises(EdgeheadsError, match="photo has no keypoints"):
        TASK.check(Sample(np.zeros((1, 1, 3), np.uint8), "photo"))
    with pytest.raises(EdgeheadsError, match="by hand has a keypoint at NaN"):
        TASK.check(sample((math.nan, 1, 2)))
    TASK.check(sample((0, 0, 0)))


def test_drawing_puts_each_point_where_it_is_beside_the_image() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    drawn = TASK.draw(image, prediction((0.25, 0.5, 0.9), (0.75, 0.5, 0.1)))
    np.testing.assert_array_equal(drawn[:, :200], image)
    assert drawn[50, 208 + 50].tolist() == list(class_color(0))
    # A ring: the point is unsure.
    assert drawn[50, 208 + 150].tolist() == [0, 0, 0]
    assert list(class_color(1)) in drawn[46:54, 208 + 146 : 208 + 154].reshape(-1, 3).tolist()


def test_drawn_label_shows_labelled_points_only() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    label = sample((25, 25, 2), (75, 25, 0), size=(50, 100))
    drawn = TASK.draw_label(image, label, LabelNames(keypoints=("a", "b")))
    assert drawn[50, 50].tolist() == list(class_color(0))
    assert not drawn[:, 100:].any()


def test_every_scene_is_a_usable_sample() -> None:
    scenes = SyntheticScenes(8, (64, 64))
    for scene in scenes:
        TASK.check(scene)
        assert TASK.target(scene, (64, 64), {})["keypoints"].shape == (4, 3)
        assert TASK.draw_label(scene.image, scene, scenes.names).shape == scene.image.shape


def test_the_file_returns_heatmaps_and_offsets_of_a_model() -> None:
    pytest.importorskip("keras")
    from edgeheads import build_model, create_backbone

    backbone = create_backbone("tiny", (32, 32, 3))
    model = build_model(backbone, "keypoints", num_keypoints=5, hidden_dim=8)
    outputs, decoding = TASK.edge_outputs(model, "keypoints")
    assert list(outputs) == ["heatmaps", "offsets"]
    assert outputs["heatmaps"].shape[-1] == 5
    assert outputs["offsets"].shape[-1] == 10
    assert decoding == {"num_keypoints": 5}
