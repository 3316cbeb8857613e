"""What is wrong with a calibration set, before ranges are measured on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from edgeheads.compression.quantize.calibration import (
    DEFAULT_CALIBRATION,
    Images,
    Range,
    measure_ranges,
)
from edgeheads.compression.quantize.image_checks import (
    Finding,
    coverage,
    look,
    normalisation,
    sound,
    telling_images,
)
from edgeheads.errors import EdgeheadsError
from edgeheads.export.flatgraph import FlatGraph

__all__ = [
    "DoctorReport",
    "Finding",
    "diagnose",
    "diagnose_images",
    "diagnose_model",
    "expected_range",
    "range_spreads",
]

# Of the width of a range: by so much it may differ between two halves of the images, ...
_SPREAD = 0.2
# ... in so large a share of the activations.
_SPREADING = 0.25
# Standard deviations of training, as its batch normalization remembers them, may be so many
# times those of the images, or the other way round.
_SCALE = 1.7
_WRONG_SCALE = 10.0
_STATISTICS_IMAGES = 64


@dataclass(frozen=True)
class DoctorReport:
    """What was found of a calibration set.

    Attributes:
        images: so many.
        findings: errors first.
        telling: different ones of more than one colour.
        spreads: {activation: by what share of its width its range differs between two disjoint
            halves of the images}; empty where errors kept them from being measured.
    """

    images: int
    findings: tuple[Finding, ...]
    telling: int = 0
    spreads: dict[str, float] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that forbid a conversion."""
        return tuple(one for one in self.findings if one.severity == "error")

    def require_usable(self) -> None:
        """Raise the first error.

        Raises:
            EdgeheadsError: there is one; the text has its advice.
        """
        for one in self.errors:
            raise EdgeheadsError(f"calibration images, {one.check}: {one.text}; {one.advice}")

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "images": self.images,
            "findings": [asdict(one) for one in self.findings],
            "range_spreads": self.spreads,
        }


def diagnose(
    images: Images,
    shape: tuple[int, ...],
    *,
    expected: tuple[float, float] | None = None,
    labels: Iterable[Iterable[int]] | None = None,
    classes: Sequence[str] = (),
    float_model: bytes | None = None,
    keras_model: Any = None,
    method: str = DEFAULT_CALIBRATION,
) -> DoctorReport:
    """Look at calibration images, and at what a model computes of them.

    Args:
        images: calibration inputs, as the model takes them; the same ones at every call.
        shape: see `diagnose_images`, as all up to `classes`.
        expected: see there.
        labels: see there.
        classes: see there.
        float_model: see `diagnose_model`, as the rest.
        keras_model: see there.
        method: see there.

    Raises:
        EdgeheadsError: an unknown method, or a model that computes NaN of sound images.
    """
    report = diagnose_images(images, shape, expected=expected, labels=labels, classes=classes)
    return diagnose_model(
        report, images, float_model=float_model, keras_model=keras_model, method=method
    )


def diagnose_images(
    images: Images,
    shape: tuple[int, ...],
    *,
    expected: tuple[float, float] | None = None,
    labels: Iterable[Iterable[int]] | None = None,
    classes: Sequence[str] = (),
) -> DoctorReport:
    """Look at calibration images alone, which needs no model.

    Memory holds one image, and a hash of each.

    Args:
        images: calibration inputs, or the pixels they are made of.
        shape: [1, H, W, C] that each must have.
        expected: (low, high) of the inputs the model was trained with; None: unknown.
        labels: of each image, the classes it shows; None: unknown.
        classes: what their numbers stand for.
    """
    seen = look(images(), shape)
    findings = [*sound(seen, shape), *normalisation(seen, expected)]
    if labels is not None:
        findings.append(coverage(labels, classes))
    return DoctorReport(seen.count, _sorted(findings), telling=seen.telling)


def diagnose_model(
    report: DoctorReport,
    images: Images,
    *,
    float_model: bytes | None = None,
    keras_model: Any = None,
    method: str = DEFAULT_CALIBRATION,
) -> DoctorReport:
    """Return the report with what a model computes of the images; as it is where it has errors.

    Args:
        report: of `diagnose_images`, of the same images.
        images: calibration inputs, as the model takes them; the same ones at every call.
        float_model: the float32 .tflite file, to measure ranges on two halves; None: do not.
        keras_model: compare with the statistics of training in its first batch normalization.
        method: how ranges are measured; a name from CALIBRATIONS.

    Raises:
        EdgeheadsError: an unknown method, or a model that computes NaN of sound images.
    """
    if report.errors:
        return report
    findings = list(report.findings)
    spreads: dict[str, float] = {}
    if keras_model is not None:
        findings += _remembered(keras_model, images)
    if float_model is not None and report.telling >= 2:
        spreads = range_spreads(float_model, lambda: telling_images(images()), method)
        findings.append(_spread(spreads, report.images))
    return replace(report, findings=_sorted(findings), spreads=spreads)


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    rank = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(findings, key=lambda one: rank[one.severity]))


def range_spreads(
    float_model: bytes, images: Images, method: str = DEFAULT_CALIBRATION
) -> dict[str, float]:
    """Return {activation: how far its ranges on two disjoint halves of the images lie apart}.

    The larger distance between two ends, as a share of the wider range. The halves are the images
    at even and at odd places.
    """

    def half(first: int) -> dict[int, Range]:
        return measure_ranges(float_model, lambda: islice(images(), first, None, 2), method)

    even, odd = half(0), half(1)
    graph = FlatGraph(float_model)
    spreads = {}
    for tensor, one in even.items():
        other = odd[tensor]
        apart = max(abs(one.low - other.low), abs(one.high - other.high))
        spreads[graph.name(tensor)] = apart / max(one.high - one.low, other.high - other.low)
    return spreads


def _spread(spreads: dict[str, float], count: int) -> Finding:
    wide = [name for name, share in spreads.items() if share > _SPREAD]
    worst = max(spreads, key=spreads.__getitem__)
    text = (
        f"measured on two halves, the ranges of {len(wide)} of {len(spreads)} activations differ "
        f"by more than {_SPREAD:.0%}; the most, {spreads[worst]:.0%}, in {worst[-60:]}"
    )
    if len(wide) > _SPREADING * len(spreads):
        return Finding(
            "warning",
            "two halves",
            text,
            f"give more than {count} images, and ones that differ less from each other in kind",
        )
    return Finding("note", "two halves", text)


def expected_range(keras_model: Any) -> tuple[float, float] | None:
    """Return the (low, high) of a Keras model's input where its first layers tell.

    A Rescaling that divides by 255 or 127.5 takes pixels. None: the model does not say.
    """
    import keras

    model = _opened(keras_model)
    [first] = model.inputs
    for layer in model.layers:
        takes_image = getattr(layer, "input", None) is first
        if isinstance(layer, keras.layers.Rescaling) and takes_image:
            scale = np.asarray(layer.scale, np.float64)
            if np.all((scale > 1 / 1000) & (scale < 1 / 20)):
                return 0.0, 255.0
    return None


def _remembered(keras_model: Any, images: Images) -> Iterator[Finding]:
    """Compare the input of the first batch normalization with its statistics of training."""
    import keras

    check = "statistics of training"
    model = _opened(keras_model)
    norms = [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]
    if not norms or norms[0].axis not in (-1, len(norms[0].output.shape) - 1):
        return
    mean = np.asarray(norms[0].moving_mean, np.float64)
    deviation = np.sqrt(np.asarray(norms[0].moving_variance, np.float64) + norms[0].epsilon)
    if not mean.any():
        yield Finding("note", check, "the model was never trained")
        return
    probe = keras.Model(model.inputs[0], norms[0].input)
    total = square = np.zeros_like(mean)
    places = 0
    for image in islice(images(), _STATISTICS_IMAGES):
        values = np.asarray(probe(image, training=False), np.float64).reshape(-1, len(mean))
        total, square = total + values.sum(axis=0), square + np.square(values).sum(axis=0)
        places += len(values)
    found = np.sqrt(np.maximum(square / places - np.square(total / places), 0))
    scale = float(np.median(found / deviation))
    shift = float(np.median(np.abs(total / places - mean) / deviation))
    text = (
        f"in {norms[0].name}, values spread {scale:.2f} times as far as in training, and lie "
        f"{shift:.1f} standard deviations from its mean"
    )
    if _between(scale, _SCALE) and shift < _SCALE:
        yield Finding("note", check, text)
        return
    hopeless = not _between(scale, _WRONG_SCALE) or shift > _WRONG_SCALE
    yield Finding(
        "error" if hopeless else "warning",
        check,
        text,
        "prepare the images as for training, and choose ones like those of training",
    )


def _opened(keras_model: Any) -> Any:
    """Return the model with models inside it laid open, where that can be done."""
    from edgeheads.compression.fold import laid_open

    if not keras_model.layers:  # what stands for a flat file
        return keras_model
    try:
        return laid_open(keras_model)
    except EdgeheadsError:
        return keras_model


def _between(ratio: float, most: float) -> bool:
    return 1 / most < ratio < most
