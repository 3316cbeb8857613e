"""The calibration doctor: one sick set for each thing it looks at, and a healthy one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.quantize.doctor import (  # noqa: E402
    DoctorReport,
    diagnose,
    diagnose_images,
    diagnose_model,
    expected_range,
    range_spreads,
)
from edgeheads.errors import EdgeheadsError  # noqa: E402
from edgeheads.export.tflite import convert_to_float_tflite  # noqa: E402

_SHAPE = (1, 8, 8, 3)


def _pictures(count: int, low: float = 0.0, high: float = 1.0) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(low, high, _SHAPE).astype(np.float32) for _ in range(count)]


def _found(report: DoctorReport) -> dict[str, tuple[str, str]]:
    return {one.check: (one.severity, one.text) for one in report.findings}


def _examined(images: Sequence[np.ndarray], **options: object) -> dict[str, tuple[str, str]]:
    report = diagnose(lambda: images, _SHAPE, **options)  # type: ignore[arg-type]
    assert report.images == len(images)
    # What is wrong has an advice, and errors come first.
    assert all(bool(one.advice) == (one.severity != "note") for one in report.findings)
    order = [one.severity for one in report.findings]
    assert order == sorted(order, key=["error", "warning", "note"].index)
    return _found(report)


def test_a_healthy_set_has_notes_only() -> None:
    found = _examined(
        _pictures(40),
        expected=(0.0, 1.0),
        labels=[[index % 2] for index in range(40)],
        classes=["cat", "dog"],
    )
    assert {severity for severity, _ in found.values()} == {"note"}
    assert found["count"] == ("note", "40 different images")
    assert found["classes"] == ("note", "all 2 are there; the rarest, cat, in 20 images")


@pytest.mark.parametrize(
    ("images", "check", "words"),
    [
        ([], "count", "there is none"),
        (_pictures(1), "count", "there is one image"),
        (_pictures(1) * 5, "count", "all 5 are one image"),
        ([np.full(_SHAPE, one, np.float32) for one in (0.1, 0.9)], "constant", "each of the 2 "),
        ([*_pictures(2), np.full(_SHAPE, np.nan)], "NaN", "1 of 3 images hold NaN .*: 2$"),
        ([*_pictures(2), np.zeros((1, 4, 8, 3))], "shape", r"received \(1, 4, 8, 3\) of image 2"),
    ],
)
def test_sets_that_cannot_be_used(images: list[np.ndarray], check: str, words: str) -> None:
    report = diagnose(lambda: images, _SHAPE)
    [found] = [one for one in report.errors if one.check == check]
    with pytest.raises(EdgeheadsError, match=r"^calibration images, .*; "):
        report.require_usable()
    assert re.search(words, found.text), found.text


def test_what_a_model_computes_is_looked_at_once_there_is_one(doubling: bytes) -> None:
    """In two steps as in one; and not at all of images that cannot be used."""
    images = [np.full(_SHAPE, 0.5, np.float32), *_pictures(40)]
    report = diagnose_images(lambda: images, _SHAPE)
    assert (report.images, report.telling, report.spreads) == (41, 40, {})
    both = diagnose_model(report, lambda: images, float_model=doubling)
    assert both == diagnose(lambda: images, _SHAPE, float_model=doubling)
    assert {one.check for one in both.findings} - {one.check for one in report.findings} == {
        "two halves"
    }
    broken = diagnose_images(lambda: images[:1], _SHAPE)
    assert diagnose_model(broken, lambda: images[:1], float_model=doubling) is broken


def test_few_constant_and_repeated_images_are_warned_of() -> None:
    grey = np.full(_SHAPE, 0.5, np.float32)
    found = _examined([*_pictures(4), *_pictures(2), grey])
    assert found["count"] == (
        "warning",
        "5 different images, which rarely show all that the model will see",
    )
    assert found["duplicates"] == ("warning", "2 of 7 images repeat others")
    assert found["constant"] == ("warning", "1 of 7 images are of one colour: 6")


@pytest.mark.parametrize(
    ("low", "high", "severity"),
    [
        (0, 255, "note"),
        (0, 1, "error"),
        (-1, 1, "error"),
        (0, 15, "warning"),
        (0, 140, "warning"),
        (0, 150, "note"),
        (-127, 128, "error"),
        (0, 300, "error"),
    ],
)
def test_values_against_those_of_training(low: float, high: float, severity: str) -> None:
    found = _examined(_pictures(4, low, high), expected=(0.0, 255.0))
    assert found["normalisation"][0] == severity
    assert "the model was trained with 0 to 255" in found["normalisation"][1]


def test_classes_that_are_in_no_image() -> None:
    found = _examined(_pictures(3), labels=[[0, 2], [], [2, 2]], classes=["a", "b", "c", "d"])
    assert found["classes"] == ("warning", "2 of 4 classes are in no image: b, d")


def _network(mean: float = 1.0, deviation: float = 0.5) -> keras.Model:
    """A model whose batch normalization remembers inputs of some mean and deviation."""
    image = keras.Input(_SHAPE[1:])
    conv = keras.layers.Conv2D(3, 1, use_bias=False)
    norm = keras.layers.BatchNormalization(epsilon=1e-9)
    model = keras.Model(image, keras.layers.ReLU()(norm(conv(image))))
    conv.set_weights([np.eye(3)[None, None]])
    norm.set_weights([np.ones(3), np.zeros(3), np.full(3, mean), np.full(3, deviation**2)])
    return model


@pytest.mark.parametrize(
    ("factor", "severity"),
    [(1.0, "note"), (1 / 2, "warning"), (255.0, "error"), (1 / 255, "error")],
)
def test_what_batch_normalization_remembers(factor: float, severity: str) -> None:
    """Half of the values are 0 and half are w: w / 2 is their mean and standard deviation."""
    board = factor * (np.indices(_SHAPE).sum(axis=0) % 2).astype(np.float32)
    found = _examined([board, factor - board], keras_model=_network(0.5, 0.5))
    assert found["statistics of training"][0] == severity
    assert f"spread {factor:.2f} times as far" in found["statistics of training"][1]


def test_a_model_that_was_never_trained_remembers_nothing() -> None:
    found = _examined(_pictures(4), keras_model=_network(0.0, 1.0))
    assert found["statistics of training"] == ("note", "the model was never trained")


@pytest.fixture(scope="module")
def doubling() -> bytes:
    """Image -> 2 * image."""
    image = keras.Input(_SHAPE[1:])
    conv = keras.layers.Conv2D(3, 1, use_bias=False)
    out = conv(image)
    conv.set_weights([2 * np.eye(3)[None, None]])
    return convert_to_float_tflite(image, {"out": out})


def _ramp(high: float) -> np.ndarray:
    return np.linspace(0, high, 192, dtype=np.float32).reshape(_SHAPE)


def test_spread_between_halves_by_hand(doubling: bytes) -> None:
    """0 to 1 at even places, 0 to 0.6 at odd ones: 40 % of the wider range, input and output."""
    spreads = range_spreads(doubling, lambda: [_ramp(1.0), _ramp(0.6), _ramp(0.9)], "min-max")
    assert list(spreads.values()) == pytest.approx([0.4, 0.4])
    found = _examined([_ramp(1.0), _ramp(0.6)], float_model=doubling, method="min-max")
    severity, text = found["two halves"]
    assert severity == "warning"
    assert "the ranges of 2 of 2 activations differ by more than 20%; the most, 40%" in text


def test_halves_are_of_different_images_that_tell_something(doubling: bytes) -> None:
    """A picture that stands at even and odd places would make the halves look alike."""
    flat = np.zeros(_SHAPE, np.float32)
    images = [_ramp(1.0), _ramp(1.0), flat, _ramp(0.6), flat]
    found = _examined(images, float_model=doubling, method="min-max")
    assert "40%" in found["two halves"][1]
    assert "two halves" not in _examined([_ramp(1.0), flat], float_model=doubling)


def test_alike_halves_are_a_note(doubling: bytes) -> None:
    assert _examined(_pictures(6), float_model=doubling)["two halves"][0] == "note"


def test_images_are_held_one_at_a_time(doubling: bytes) -> None:
    alive = peak = 0

    def images() -> Iterator[np.ndarray]:
        nonlocal alive, peak
        for one in _pictures(6):
            alive += 1
            peak = max(peak, alive)
            yield one
            alive -= 1

    diagnose(images, _SHAPE, float_model=doubling)
    # A generator that is left early never comes to its last line; none is.
    assert peak == 1


@pytest.mark.parametrize(
    ("scale", "expected"), [(1 / 255, (0, 255)), (1 / 127.5, (0, 255)), (1, None)]
)
def test_a_rescaling_tells_what_the_model_takes(
    scale: float, expected: tuple[float, float] | None
) -> None:
    image = keras.Input(_SHAPE[1:])
    x = keras.layers.Rescaling(scale, offset=-1.0)(image)
    assert expected_range(keras.Model(image, keras.layers.Conv2D(1, 1)(x))) == expected


def test_models_inside_a_model_tell_as_much() -> None:
    """As of a network of keras.applications behind a Sequential that prepares its input."""
    image = keras.Input(_SHAPE[1:])
    prepared = keras.Sequential([keras.Input(_SHAPE[1:]), keras.layers.Rescaling(1 / 255)])(image)
    outer = keras.Model(image, _network(0.5, 0.5)(prepared))
    assert expected_range(outer) == (0.0, 255.0)
    dark = _examined(_pictures(4), keras_model=outer)
    assert dark["statistics of training"][0] == "error"


def test_a_model_without_a_rescaling_tells_nothing() -> None:
    assert expected_range(_network()) is None


def test_a_report_is_json() -> None:
    report = diagnose(lambda: _pictures(2), _SHAPE)
    content = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert content["images"] == 2
    assert content["findings"][0]["severity"] == "warning"
