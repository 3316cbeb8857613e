"""What a conversion needs of the training split where nothing is trained."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from edgeheads.data.reading import Skipped
from edgeheads.data.sample import Sample
from edgeheads.progress import Progress
from edgeheads.recipe import Recipe
from edgeheads.tasks.base import Task
from edgeheads.train import TrainingData, open_training_data

__all__ = ["read_bare_data"]


def read_bare_data(
    recipe: Recipe, task: Task, last: int, progress: Progress
) -> tuple[TrainingData, dict[str, Any]]:
    """Read the training split once, and keep the calibration images of it.

    Memory grows with the calibration images alone: the first samples, as many as the recipe
    calibrates with, and the last few are kept, without the labels that only training needs.

    Args:
        recipe: what to read, and how many samples are calibrated with.
        task: the recipe's.
        last: how many of the last samples are kept, too.
        progress: where to report.

    Returns:
        The samples that are kept, and the trivial predictor that all of them teach.

    Raises:
        EdgeheadsError: see `read_training_data`.
    """
    skipped = Skipped()
    names, samples = open_training_data(recipe, task, skipped, progress)
    first: list[Sample] = []
    ending: deque[Sample] = deque(maxlen=last)

    def passing() -> Iterator[Sample]:
        for sample in samples:
            if len(first) < recipe.export.calibration_samples:
                first.append(_bare(sample))
            else:
                ending.append(_bare(sample))
            yield sample

    baseline = task.baseline(passing(), names)
    return TrainingData([*first, *ending], names, skipped), baseline


def _bare(sample: Sample) -> Sample:
    """Return the image and the labels that tell which classes it shows."""
    objects = sample.objects
    return Sample(
        sample.image,
        name=sample.name,
        label=sample.label,
        objects=None if objects is None else replace(objects, masks=None),
        semantic=None if sample.label is not None else sample.semantic,
    )
