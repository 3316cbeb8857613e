"""Augmentations that change what pixels look like, and move none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgeheads.data.sample import LabelNames, Sample

__all__ = ["blur", "color", "noise"]

# Of the noise's standard deviation, in grey levels; and of the blur's, in pixels.
_MOST_NOISE = 12.0
_MOST_BLUR_PX = 1.2


def color(
    sample: Sample,
    rng: np.random.Generator,
    names: LabelNames,
    others: Callable[[], Sample] | None = None,
) -> Sample:
    """Change exposure, contrast, gamma and white balance a little."""
    # One curve per channel, looked up: the same for a thousand pixels as for a million.
    level = np.linspace(0, 1, 256) ** rng.uniform(0.8, 1.25)
    level = (level - 0.5) * rng.uniform(0.8, 1.2) + 0.5
    curves = level[:, None] * rng.uniform(0.8, 1.2) * rng.uniform(0.93, 1.07, size=3)
    table = (np.clip(curves, 0, 1) * 255 + 0.5).astype(np.uint8)
    return replace(sample, image=table[sample.image, np.arange(3)])


def noise(
    sample: Sample,
    rng: np.random.Generator,
    names: LabelNames,
    others: Callable[[], Sample] | None = None,
) -> Sample:
    """Add the grain of a sensor in the dark, half of the time."""
    if rng.random() < 0.5:
        return sample
    grain = rng.standard_normal(sample.image.shape, np.float32)
    grain *= np.float32(rng.uniform(0, _MOST_NOISE))
    grain += sample.image
    return replace(sample, image=np.clip(grain + np.float32(0.5), 0, 255).astype(np.uint8))


def blur(
    sample: Sample,
    rng: np.random.Generator,
    names: LabelNames,
    others: Callable[[], Sample] | None = None,
) -> Sample:
    """Blur like a lens that is out of focus, half of the time."""
    from PIL import Image, ImageFilter

    if rng.random() < 0.5:
        return sample
    soft = ImageFilter.GaussianBlur(rng.uniform(0, _MOST_BLUR_PX))
    return replace(sample, image=np.asarray(Image.fromarray(sample.image).filter(soft)))
