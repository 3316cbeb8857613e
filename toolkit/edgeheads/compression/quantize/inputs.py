"""Calibration inputs of a model: from labelled samples, from pictures, or from an array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeheads.backbones.base import InputScaling
from edgeheads.compression.quantize.calibration import Images
from edgeheads.compression.quantize.doctor import expected_range
from edgeheads.contract import scale_pixels
from edgeheads.data.images import IMAGE_SUFFIXES, read_rgb, resize_rgb
from edgeheads.errors import EdgeheadsError, unknown_name
from edgeheads.tasks.base import Array

if TYPE_CHECKING:
    from edgeheads.data.sample import LabelNames, Sample

__all__ = ["SCALINGS", "CalibrationInputs", "inputs_of_samples", "read_inputs", "scaled_range"]

# What `--scaling` calls the ways in which pixels become inputs.
SCALINGS = {
    "pixels": InputScaling(),
    "unit": InputScaling.uniform(1 / 255),
    "signed": InputScaling.uniform(1 / 127.5, -1.0),
    "imagenet": InputScaling.standardized((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

# ITU-R BT.601: how bright red, green and blue look.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class CalibrationInputs:
    """Inputs of a model, and what is known of them.

    Attributes:
        images: gives them [1, H, W, C] one by one, the same ones at every call.
        count: how many.
        expected: (low, high) of what the model was trained with; None: unknown.
        labels: of each image, the classes it shows; None: unknown.
        classes: what their numbers stand for.
    """

    images: Images
    count: int
    expected: tuple[float, float] | None = None
    labels: tuple[frozenset[int], ...] | None = None
    classes: tuple[str, ...] = ()


def scaled_range(scaling: InputScaling) -> tuple[float, float]:
    """Return the least and the greatest input that pixels from 0 to 255 become."""
    low, high = np.asarray(scaling.offset), 255 * np.asarray(scaling.scale) + scaling.offset
    return float(low.min()), float(high.max())


def inputs_of_samples(
    scaling: InputScaling, samples: Sequence[Sample], names: LabelNames
) -> CalibrationInputs:
    """Return labelled samples of a model's size as its calibration inputs.

    Args:
        scaling: how pixels become the model's inputs.
        samples: as many as are to be used.
        names: what the numbers in their labels stand for.
    """

    def images() -> Iterator[Array]:
        for sample in samples:
            yield scale_pixels(sample.image, scaling.scale, scaling.offset)[None]

    classes, labels = _labels(samples, names)
    return CalibrationInputs(images, len(samples), scaled_range(scaling), labels, classes)


def _labels(
    samples: Sequence[Sample], names: LabelNames
) -> tuple[tuple[str, ...], tuple[frozenset[int], ...] | None]:
    """Return class names, and which classes each sample shows; None where nobody drew any."""
    if any(one.label is not None for one in samples):
        return names.classes, tuple(
            frozenset(() if one.label is None else [one.label]) for one in samples
        )
    if any(one.semantic is not None for one in samples) and names.semantic:
        return names.semantic, tuple(
            frozenset(() if one.semantic is None else one.semantic.ravel().tolist())
            for one in samples
        )
    if any(one.objects is not None for one in samples) and names.classes:
        return names.classes, tuple(
            frozenset(() if one.objects is None else one.objects.classes.tolist())
            for one in samples
        )
    return (), None


def read_inputs(
    model: Any, source: Path, *, scaling: str | None = None, most: int = 128
) -> CalibrationInputs:
    """Find calibration inputs of a Keras model with one image input.

    Args:
        model: takes [N, H, W, C] with a fixed H and W.
        source: a folder of pictures, in folders of their own or not; where each lies in one of
            two folders or more, those are classes. Or an .npz file with x [N, H, W, C], as the
            model takes them.
        scaling: a name from SCALINGS, of pictures; None: as the model's Rescaling tells.
        most: so many, evenly spread over the source.

    Raises:
        EdgeheadsError: a source that cannot be read, is empty, or does not fit the model; or
            nothing says how pixels become inputs.
    """
    if source.is_file():
        return _from_arrays(model, source, scaling, most)
    if not source.is_dir():
        raise EdgeheadsError(
            f"calibration data {source} does not exist; expected a folder of pictures, or an .npz "
            "file with x"
        )
    files = sorted(one for one in source.rglob("*") if one.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise EdgeheadsError(
            f"calibration data {source} holds no pictures; expected {', '.join(IMAGE_SUFFIXES)}"
        )
    files = files[:: -(-len(files) // most)]
    height, width, channels = model.inputs[0].shape[1:]
    if channels not in (1, 3):
        raise EdgeheadsError(
            f"pictures have 1 or 3 channels, and the model takes {channels}; give an .npz file "
            "with x"
        )
    chosen = _scaling(model, scaling)

    def images() -> Iterator[Array]:
        for file in files:
            picture = resize_rgb(read_rgb(file), (height, width))
            if channels == 1:
                grey = np.round(picture @ _LUMA)[..., None]
                picture = np.repeat(grey, 3, axis=-1).astype(np.uint8)
            yield scale_pixels(picture, chosen.scale, chosen.offset)[None, ..., :channels]

    parents = [file.relative_to(source).parts[0] if file.parent != source else "" for file in files]
    classes = tuple(sorted(set(parents)))
    labelled = len(classes) > 1 and "" not in classes
    return CalibrationInputs(
        images,
        len(files),
        scaled_range(chosen),
        tuple(frozenset([classes.index(one)]) for one in parents) if labelled else None,
        classes if labelled else (),
    )


def _scaling(model: Any, name: str | None) -> InputScaling:
    if name is not None:
        if name not in SCALINGS:
            raise unknown_name("scaling", name, SCALINGS)
        return SCALINGS[name]
    if expected_range(model) is None:
        raise EdgeheadsError(
            "nothing says how pixels become the model's inputs; add --scaling pixels (0 to 255), "
            "unit (0 to 1), signed (-1 to 1) or imagenet (its mean and standard deviation), "
            "whichever the model was trained with"
        )
    return SCALINGS["pixels"]


def _from_arrays(model: Any, source: Path, scaling: str | None, most: int) -> CalibrationInputs:
    if scaling is not None:
        raise EdgeheadsError(
            f"--scaling {scaling} is for pictures, and {source} is a file of inputs as the model "
            "takes them; leave it out"
        )
    try:
        with np.load(source, allow_pickle=False) as file:
            x = file["x"]
    except Exception as error:  # zipfile and NumPy each have their own
        raise EdgeheadsError(
            f"calibration data {source} cannot be read ({' '.join(str(error).split())[:150]}); "
            "expected a folder of pictures, or an .npz file with x"
        ) from None
    takes = tuple(model.inputs[0].shape[1:])
    if x.shape[1:] != takes or not len(x) or x.dtype.kind not in "fiu":
        raise EdgeheadsError(
            f"calibration data {source} must hold numbers x of shape (N, {str(takes)[1:]}, "
            f"received {x.shape} of {x.dtype}"
        )
    x = x[:: -(-len(x) // most)]
    return CalibrationInputs(
        lambda: (one[None].astype(np.float32) for one in x), len(x), expected_range(model)
    )
