"""The classification task: metrics worked by hand, decoding, the baseline, the pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks import get_task
from edgeheads.tasks.classification import ClassificationEvaluator

TASK = get_task("classification")
NAMES = LabelNames(classes=("cat", "dog", "owl"))


def sample(label: int | None, size: tuple[int, int] = (8, 8)) -> Sample:
    return Sample(np.full((*size, 3), 90, np.uint8), "by hand", label=label)


def scored(*cases: tuple[list[float], int]) -> dict[str, Any]:
    evaluator = ClassificationEvaluator()
    for probabilities, label in cases:
        evaluator.update({"probabilities": np.array(probabilities)}, sample(label))
    return evaluator.result()


def test_top1_and_top5_by_hand() -> None:
    """Of seven classes in falling order: the label is first, fifth, sixth."""
    falling = [0.4, 0.2, 0.15, 0.1, 0.06, 0.05, 0.04]
    result = scored((falling, 0), (falling, 4), (falling, 5))
    assert result["metrics"]["top1"] == pytest.approx(1 / 3)
    assert result["metrics"]["top5"] == pytest.approx(2 / 3)
    assert result["counts"] == {"images": 3}
    assert result["ranges"]["confidence"] == pytest.approx([0.4, 0.4])


def test_calibration_error_by_hand() -> None:
    """Two images share the bin (0.6, 0.667]: sure by 0.62 and 0.66, one of them right. One is
    alone, sure by 0.95 and right: (|1.28 - 1| + |0.95 - 1|) / 3."""
    result = scored(([0.62, 0.38], 0), ([0.66, 0.34], 1), ([0.05, 0.95], 1))
    assert result["metrics"]["ece"] == pytest.approx((0.28 + 0.05) / 3)


def test_bins_of_confidence_are_closed_at_the_top() -> None:
    """10/15 belongs to the bin below it: with 0.65, right and wrong, it is off by 0.3167."""
    tenth = 10 / 15
    result = scored(([tenth, 1 - tenth], 0), ([0.65, 0.35], 1))
    assert result["metrics"]["ece"] == pytest.approx(abs(tenth + 0.65 - 1) / 2)
    # Were they in two bins, each would be off on its own: (1 - 0.6667 + 0.65) / 2.
    assert scored(([1.0, 0.0], 0))["metrics"]["ece"] == 0


def test_of_equal_probabilities_the_first_class_is_the_guess() -> None:
    assert scored(([0.5, 0.5], 0))["metrics"]["top1"] == 1
    assert scored(([0.5, 0.5], 1))["metrics"]["top1"] == 0


@pytest.mark.parametrize(
    ("probabilities", "label", "words"),
    [
        ([np.nan, 0.5], 0, "NaN or infinite probabilities on by hand"),
        ([0.5, 0.5], 2, "by hand is of class 2, but the model has 2 classes"),
    ],
)
def test_what_cannot_be_scored(probabilities: list[float], label: int, words: str) -> None:
    with pytest.raises(EdgeheadsError, match=words):
        scored((probabilities, label))


def test_no_image_is_no_score() -> None:
    with pytest.raises(EdgeheadsError, match="no image to score"):
        ClassificationEvaluator().result()


def test_number_and_names_of_classes_come_from_the_data() -> None:
    assert TASK.head_options(NAMES) == {"num_classes": 3}
    assert TASK.labels(NAMES) == ("cat", "dog", "owl")
    with pytest.raises(EdgeheadsError, match=r"at least 2 classes, the data has 1 \(cat\); give"):
        TASK.head_options(LabelNames(classes=("cat",)))
    with pytest.raises(EdgeheadsError, match=r"num_classes is 4, but the data has 3 classes"):
        get_task("classification", {"num_classes": 4}).head_options(NAMES)


@pytest.mark.parametrize(
    ("label", "words"), [(None, "has no class, which task"), (-1, "at least 0, received -1")]
)
def test_sample_without_a_class_is_refused(label: int | None, words: str) -> None:
    with pytest.raises(EdgeheadsError, match=words):
        TASK.check(sample(label))


def test_targets_stack_to_a_batch() -> None:
    targets = [TASK.target(sample(label), (4, 4), {})["label"] for label in (2, 0)]
    assert np.stack(targets).tolist() == [2, 0]
    assert np.stack(targets).dtype == np.int32


def test_logits_become_probabilities() -> None:
    logits = np.log([[2.0, 1.0, 1.0]]) + 800
    decoded = TASK.decode({"logits": logits}, {"encoding": "logits"})
    np.testing.assert_allclose(decoded["probabilities"], [0.5, 0.25, 0.25], rtol=1e-6)


def test_probabilities_of_int8_sum_to_one() -> None:
    decoded = TASK.decode(
        {"probabilities": np.array([[100, 50, 50]]) / 256}, {"encoding": "probabilities"}
    )
    np.testing.assert_allclose(decoded["probabilities"], [0.5, 0.25, 0.25], rtol=1e-6)
    nothing = TASK.decode({"probabilities": np.zeros((1, 4))}, {"encoding": "probabilities"})
    assert nothing["probabilities"].tolist() == [0.25] * 4


def test_baseline_is_the_frequency_of_each_class() -> None:
    baseline = TASK.baseline([sample(label) for label in (2, 2, 0, 2)], NAMES)
    assert baseline["probabilities"] == [0.25, 0.0, 0.75]
    prediction = TASK.predict_baseline(baseline, (4, 4))
    evaluator = TASK.evaluator({})
    for label in (2, 2, 2, 0):
        evaluator.update(prediction, sample(label))
    assert evaluator.result()["metrics"] == {"top1": 0.75, "top5": 1.0, "ece": 0.0}


@pytest.mark.parametrize(("labels", "words"), [([], "no sample with a class"), ([3], "class 3")])
def test_baseline_of_other_classes(labels: list[int], words: str) -> None:
    with pytest.raises(EdgeheadsError, match=f"of the 3 classes.* received .*{words}"):
        TASK.baseline([sample(label) for label in labels], NAMES)


def test_drawing_shows_image_names_and_bars() -> None:
    image = sample(0, (120, 100)).image
    drawn = TASK.draw(image, {"probabilities": np.array([0.1, 0.6, 0.3])}, NAMES.classes)
    np.testing.assert_array_equal(drawn[:, :100], image)
    panel = drawn[:, 108:]
    # The bars, from the first row down: 60 %, 30 %, 10 % of the same length, each with its colour.
    lengths = []
    for row in range(3):
        line = panel[row * 30 + 21].astype(int)
        lengths.append(int((np.ptp(line, axis=1) > 30).sum()))
    assert lengths == [round(share * 152) for share in (0.6, 0.3, 0.1)]


def test_small_image_is_enlarged_beside_its_bars() -> None:
    drawn = TASK.draw(sample(0, (32, 32)).image, {"probabilities": np.array([1.0, 0.0])})
    assert drawn.shape == (96, 96 + 8 + 160, 3)


def test_label_is_drawn_in_the_corner() -> None:
    image = sample(1, (60, 80)).image
    drawn = TASK.draw_label(image, sample(1), NAMES)
    assert drawn.shape == image.shape
    changed = np.argwhere((drawn != image).any(axis=-1))
    assert changed.min() == 0
    assert changed.max() < 40


# --- With Keras ---


def foreign(last: Callable[[Any, Any], Any]) -> Any:
    keras = pytest.importorskip("keras")
    image = keras.Input((8, 8, 3))
    return keras.Model(image, last(keras.layers, keras.layers.Flatten()(image)))


@pytest.mark.parametrize(
    ("last", "name", "encoding"),
    [
        (lambda layers, x: layers.Dense(3)(x), "logits", "logits"),
        (
            lambda layers, x: layers.Dense(3, activation="softmax")(x),
            "probabilities",
            "probabilities",
        ),
        (lambda layers, x: layers.Softmax()(layers.Dense(3)(x)), "logits", "logits"),
        (lambda layers, x: layers.Activation("softmax")(layers.Dense(3)(x)), "logits", "logits"),
        (lambda layers, x: {"scores": layers.Dense(3)(x)}, "logits", "logits"),
    ],
)
def test_model_of_another_maker(last: Callable[[Any, Any], Any], name: str, encoding: str) -> None:
    """Decoded, its edge output is the softmax over the classes, whatever the model ends in."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    model = foreign(last)
    outputs, decoding = TASK.edge_outputs(model, "classification")
    assert list(outputs) == [name]
    assert decoding == {"encoding": encoding}
    images = np.random.default_rng(0).random((1, 8, 8, 3), np.float32)
    values = keras.Model(model.input, outputs).predict(images, verbose=0)
    decoded = TASK.decode(values, decoding)["probabilities"]
    own = model.predict(images, verbose=0)
    own = (own["scores"] if isinstance(own, dict) else own)[0]
    expected = own if own.sum() == pytest.approx(1, abs=1e-5) else np.exp(own) / np.exp(own).sum()
    np.testing.assert_allclose(decoded, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (lambda layers, x: layers.Dense(3, activation="sigmoid")(x), "activation 'sigmoid'"),
        (lambda layers, x: layers.Dense(1)(x), r"K at least 2, received \[\(None, 1\)\]"),
        (lambda layers, x: [layers.Dense(2)(x), layers.Dense(2)(x)], r"one score for each class"),
    ],
)
def test_model_that_is_no_classifier(last: Callable[[Any, Any], Any], words: str) -> None:
    with pytest.raises(EdgeheadsError, match=words):
        TASK.edge_outputs(foreign(last), "classification")


def test_rare_classes_weigh_more_only_where_some_are_rare() -> None:
    keras = pytest.importorskip("keras")
    balanced = [sample(label) for label in (0, 1, 2, 0, 1, 2)]
    assert TASK.training_loss(NAMES, balanced) == TASK.loss
    skewed = [sample(label) for label in (0, 0, 0, 1, 2)]
    loss = TASK.training_loss(NAMES, skewed)
    logits = keras.ops.convert_to_tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    outputs, targets = {"logits": logits}, {"label": np.array([0, 1], np.int32)}
    # The second image is wrong, and of a class three times as rare.
    first, second = (
        float(TASK.loss({"label": np.array([label], np.int32)}, {"logits": logits[:1]}))
        for label in (0, 1)
    )
    assert float(loss(targets, outputs)) == pytest.approx((first + 3 * second) / 4, rel=1e-5)
    assert float(TASK.loss(targets, outputs)) == pytest.approx((first + second) / 2, rel=1e-5)
