"""The segmentation task: metrics worked by hand, decoding, the baseline, the picture."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeheads.data.sample import LabelNames, Sample
from edgeheads.data.synthetic import SyntheticScenes
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks import get_task
from edgeheads.tasks.drawing import class_color
from edgeheads.tasks.segmentation import SegmentationEvaluator

TASK = get_task("segmentation")
NAMES = LabelNames(semantic=("floor", "wall", "ceiling"))


def sample(semantic: list[list[int]]) -> Sample:
    array = np.array(semantic, np.int32)
    return Sample(np.zeros((*array.shape, 3), np.uint8), "by hand", semantic=array)


def prediction(classes: list[list[int]]) -> dict[str, np.ndarray]:
    return {"classes": np.array(classes, np.int32)}


def test_metrics_by_hand() -> None:
    """Confusion (label, prediction): 2 of (0, 0), 1 of (0, 1), 3 of (1, 1), 2 of (1, 0)."""
    evaluator = SegmentationEvaluator(4)
    evaluator.update(prediction([[0, 0, 1, 1], [1, 1, 0, 0]]), sample([[0, 0, 0, 1], [1, 1, 1, 1]]))
    result = evaluator.result()
    assert result["metrics"] == pytest.approx(
        {"miou": (2 / 5 + 3 / 6) / 2, "pixel_accuracy": 5 / 8, "mean_accuracy": (2 / 3 + 3 / 5) / 2}
    )
    assert result["per_class"]["iou"] == [2 / 5, 3 / 6, None, None]
    assert result["per_class"]["pixels"] == [3, 5, 0, 0]


def test_a_class_that_is_only_predicted_counts_as_zero_iou_but_not_in_class_accuracy() -> None:
    evaluator = SegmentationEvaluator(3)
    evaluator.update(prediction([[0, 0, 0, 2]]), sample([[0, 0, 0, 0]]))
    metrics = evaluator.result()["metrics"]
    assert metrics["miou"] == (3 / 4 + 0) / 2
    assert metrics["mean_accuracy"] == 3 / 4


def test_one_confusion_matrix_for_all_images_not_a_mean_of_images() -> None:
    evaluator = SegmentationEvaluator(2)
    evaluator.update(prediction([[0, 0, 0, 0]]), sample([[0, 0, 0, 1]]))
    evaluator.update(prediction([[1, 1, 1, 1]]), sample([[1, 1, 1, 1]]))
    # IoU 3/4 and 4/5; the mean over images would be ((3/4 + 0) / 2 + 1) / 2.
    assert evaluator.result()["metrics"]["miou"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert evaluator.result()["counts"] == {
        "images": 2,
        "images_left_out": 0,
        "pixels": 8,
        "pixels_ignored": 0,
    }


def test_the_order_of_images_makes_no_difference() -> None:
    rng = np.random.default_rng(0)
    images = [
        ({"classes": rng.integers(0, 3, (5, 6))}, sample(rng.integers(-1, 3, (5, 6)).tolist()))
        for _ in range(6)
    ]
    one, other = SegmentationEvaluator(3), SegmentationEvaluator(3)
    for guess, truth in images:
        one.update(guess, truth)
    for guess, truth in reversed(images):
        other.update(guess, truth)
    assert one.result() == other.result()


def test_ignored_pixels_count_for_nothing() -> None:
    evaluator = SegmentationEvaluator(2)
    evaluator.update(prediction([[0, 1, 1, 1]]), sample([[0, 1, -1, -1]]))
    result = evaluator.result()
    assert result["metrics"] == {"miou": 1.0, "pixel_accuracy": 1.0, "mean_accuracy": 1.0}
    assert result["counts"]["pixels_ignored"] == 2


def test_image_without_a_labelled_pixel_is_left_out_and_counted() -> None:
    evaluator = SegmentationEvaluator(2)
    evaluator.update(prediction([[0]]), sample([[-1]]))
    with pytest.raises(EdgeheadsError, match="none of 1 images has a labelled pixel"):
        evaluator.result()
    evaluator.update(prediction([[0]]), sample([[0]]))
    assert evaluator.result()["counts"]["images_left_out"] == 1


def test_logits_are_resized_before_the_greatest_is_taken() -> None:
    """Class 1 leads by 3 on the right, class 0 by 1 on the left. Between the centres the lead is
    -1, 0, 2, 3 on 4 pixels: a quarter of the way, and the border lies off the middle."""
    logits = np.array([[[0.0, -1.0], [0.0, 3.0]]], np.float32)
    evaluator = SegmentationEvaluator(2)
    evaluator.update({"logits": logits}, sample([[0, 0, 1, 1]]))
    assert evaluator.result()["metrics"]["pixel_accuracy"] == 1
    strong = np.array([[[0.0, -1.0], [0.0, 4.0]]], np.float32)
    evaluator = SegmentationEvaluator(2)
    evaluator.update({"logits": strong}, sample([[0, 1, 1, 1]]))
    assert evaluator.result()["metrics"]["pixel_accuracy"] == 1


def test_label_the_model_does_not_know_is_an_error() -> None:
    with pytest.raises(EdgeheadsError, match="by hand has pixels of class 7, expected 0 to 1"):
        SegmentationEvaluator(2).update(prediction([[0]]), sample([[7]]))
    with pytest.raises(EdgeheadsError, match="by hand has pixels of class 3, expected 0 to 2"):
        TASK.training_loss(NAMES, [sample([[0, 3]])])


def test_nan_prediction_is_an_error_not_a_class() -> None:
    logits = np.full((1, 1, 2), math.nan, np.float32)
    with pytest.raises(EdgeheadsError, match="NaN or infinite logits on by hand"):
        SegmentationEvaluator(2).update({"logits": logits}, sample([[0]]))


def test_decoding_takes_the_greatest_logit() -> None:
    logits = np.array([[[[1, 3, 2], [5, 4, -1]]]], np.float32)
    decoded = TASK.decode({"logits": logits}, {"num_classes": 3})
    assert decoded["classes"].tolist() == [[1, 0]]
    np.testing.assert_array_equal(decoded["logits"], logits[0])


def test_one_logit_decodes_to_two_classes() -> None:
    logits = np.array([0.5, -0.5], np.float32).reshape(1, 1, 2, 1)
    decoded = TASK.decode({"logits": logits}, {"num_classes": 2})
    assert decoded["classes"].tolist() == [[1, 0]]
    assert decoded["logits"].tolist() == [[[0.0, 0.5], [0.0, -0.5]]]


def test_baseline_is_the_most_frequent_class_of_each_place() -> None:
    top, bottom = [[2] * 32] * 16, [[0] * 32] * 16
    samples = [sample(top + bottom), sample(top + bottom), sample([[1] * 32] * 32)]
    baseline = TASK.baseline(samples, NAMES)
    assert baseline["classes"] == [[2] * 16] * 8 + [[0] * 16] * 8
    guess = TASK.predict_baseline(baseline, (4, 2))["classes"]
    assert guess.tolist() == [[2, 2], [2, 2], [0, 0], [0, 0]]


def test_baseline_of_a_place_nobody_labelled_is_the_most_frequent_class_anywhere() -> None:
    baseline = TASK.baseline([sample([[1, -1], [1, 0]])], NAMES)
    assert baseline["classes"][0][8] == 1
    assert baseline["classes"][8][8] == 0


def test_labels_decide_the_number_of_classes() -> None:
    assert TASK.head_options(NAMES) == {"num_classes": 3}
    assert TASK.labels(NAMES) == NAMES.semantic
    two = LabelNames(semantic=("background", "person"))
    assert get_task("segmentation", {"num_classes": 1}).head_options(two) == {"num_classes": 1}


def test_wrong_numbers_of_classes_are_refused() -> None:
    with pytest.raises(EdgeheadsError, match="at least 2 classes of pixels, the data has 0"):
        TASK.head_options(LabelNames())
    for wrong in (1, 21):
        with pytest.raises(EdgeheadsError, match=rf"num_classes is {wrong}, but the data has 3"):
            get_task("segmentation", {"num_classes": wrong}).head_options(NAMES)


def test_sample_without_a_class_map_of_its_size_is_refused() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    with pytest.raises(EdgeheadsError, match="photo has no class map"):
        TASK.check(Sample(image, "photo"))
    with pytest.raises(EdgeheadsError, match=r"image's size \(2, 3\), received \(3, 2\)"):
        TASK.check(Sample(image, "photo", semantic=np.zeros((3, 2), np.int32)))


def test_target_has_the_size_of_the_logits_and_no_new_class() -> None:
    one = sample([[0, -1], [2, 2]])
    assert TASK.target(one, (4, 4), {})["semantic"].shape == (4, 4)
    target = TASK.target(one, (64, 64), {"map_size": [2, 2]})["semantic"]
    assert target.tolist() == [[0, -1], [2, 2]]


def test_rare_classes_weigh_more_in_training() -> None:
    keras = pytest.importorskip("keras")
    truth = np.zeros((1, 10, 10), np.int32)
    truth[0, 0, 0] = 1
    loss = TASK.training_loss(NAMES, [sample(truth[0].tolist())])
    logits = np.zeros((1, 10, 10, 3), np.float32)

    def cost(of: int) -> float:
        wrong = logits.copy()
        wrong[truth == of, of] = -1
        return float(loss({"semantic": truth}, {"logits": keras.ops.convert_to_tensor(wrong)}))

    # 99 pixels against 1 weigh 99^0.5 against 1 in all, and not 99.
    base = float(loss({"semantic": truth}, {"logits": keras.ops.convert_to_tensor(logits)}))
    assert 2 < (cost(0) - base) / (cost(1) - base) < 20


def test_drawing_shows_image_and_class_colours_side_by_side_with_names() -> None:
    image = np.full((40, 20, 3), 100, np.uint8)
    classes = np.zeros((40, 20), np.int32)
    classes[20:] = 2
    drawn = TASK.draw(image, {"classes": classes}, NAMES.semantic)
    np.testing.assert_array_equal(drawn[:, :20], image)
    for row, index in ((0, 0), (39, 2)):
        np.testing.assert_array_equal(
            drawn[row, 28], (np.array([100] * 3) + class_color(index)) // 2
        )
    legend = drawn[:, 48:].reshape(-1, 3).tolist()
    assert list(class_color(0)) in legend
    assert list(class_color(2)) in legend
    assert list(class_color(1)) not in legend


def test_drawn_label_has_the_size_of_the_image_and_shows_what_nobody_knows_as_it_is() -> None:
    image = np.full((60, 60, 3), 90, np.uint8)
    semantic = np.full((30, 30), -1, np.int32)
    drawn = TASK.draw_label(image, Sample(image, "x", semantic=semantic), NAMES)
    np.testing.assert_array_equal(drawn, image)
    scene = SyntheticScenes(1, (64, 64))[0]
    drawn = TASK.draw_label(scene.image, scene, SyntheticScenes(1, (64, 64)).names)
    assert drawn.shape == scene.image.shape
    assert (drawn != scene.image).any(axis=-1).mean() > 0.9


def test_the_file_returns_the_logits_of_a_model() -> None:
    pytest.importorskip("keras")
    from edgeheads import build_model, create_backbone

    backbone = create_backbone("tiny", (32, 32, 3))
    model = build_model(backbone, "segmentation", num_classes=3, hidden_dim=8)
    outputs, decoding = TASK.edge_outputs(model, "segmentation")
    assert list(outputs) == ["logits"]
    assert outputs["logits"].shape == (None, 32, 32, 3)
    assert decoding == {"num_classes": 3, "map_size": [32, 32]}
    with pytest.raises(EdgeheadsError, match="no layer 'other_logits'"):
        TASK.edge_outputs(model, "other")
