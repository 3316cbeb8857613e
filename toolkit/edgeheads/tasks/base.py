"""What a task is: everything the pipeline must know about it, in one room."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.sample import Sample
from edgeheads.tasks.task_type import TaskType

__all__ = ["Array", "Evaluator", "Metric", "Prediction", "Task"]

Array = NDArray[Any]
Prediction = dict[str, Array]


@dataclass(frozen=True)
class Metric:
    """A number that says how good predictions are.

    Attributes:
        name: its key in JSON.
        title: its heading in tables.
        unit: "" for a plain ratio.
        higher_is_better: the direction.
        low: the least value it can take.
        high: the greatest.
        allowed_drop: how much worse an int8 file may be than the float model; None: not judged.
        drop_is_relative: the drop is a share of the float model's value, not a difference.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool
    low: float
    high: float
    allowed_drop: float | None = None
    drop_is_relative: bool = False

    def drop(self, reference: float, value: float) -> float:
        """Return by how much `value` is worse than `reference`; negative where it is better."""
        worse = reference - value if self.higher_is_better else value - reference
        if not self.drop_is_relative:
            return worse
        return worse / abs(reference) if reference else (0.0 if worse == 0 else float("inf"))


class Evaluator(ABC):
    """Accumulates predictions against labels; how they are batched makes no difference."""

    @abstractmethod
    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Take one image's prediction into account."""

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """Return {"metrics": {name: value}, "counts": {...}, "ranges": {...}} of all updates."""


class Task(ABC):
    """One task. Nothing at import time, and nothing after the Bundle, needs more than NumPy."""

    type: ClassVar[TaskType]
    title: ClassVar[str]
    default_recipe: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    protocol: ClassVar[str]
    augmentations: ClassVar[tuple[str, ...]]

    # Before the Bundle

    @abstractmethod
    def check(self, sample: Sample) -> None:
        """Raise EdgeheadsError if the sample lacks the task's label."""

    @abstractmethod
    def target(self, sample: Sample, size: tuple[int, int]) -> dict[str, Array]:
        """Return what the loss compares the outputs with, for an image resized to `size`."""

    @abstractmethod
    def loss(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """Return the scalar training loss of a batch, with keras.ops."""

    @abstractmethod
    def edge_outputs(self, model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Choose the tensors of a Keras model that the .tflite file returns.

        They are those that int8 keeps best, usually in front of the last non-linear step.

        Returns:
            {output name: symbolic tensor}, and the `decoding` that turns them into a prediction.
        """

    @abstractmethod
    def baseline(self, samples: Iterable[Sample]) -> dict[str, Any]:
        """Return the trivial predictor learned from training samples, as plain JSON values."""

    # After the Bundle

    @abstractmethod
    def decode(self, outputs: Mapping[str, Array], decoding: Mapping[str, Any]) -> Prediction:
        """Turn one image's real-valued outputs [1, ...] into a prediction."""

    @abstractmethod
    def predict_baseline(self, baseline: Mapping[str, Any], size: tuple[int, int]) -> Prediction:
        """Return what the trivial predictor says of any image."""

    @abstractmethod
    def evaluator(self, decoding: Mapping[str, Any]) -> Evaluator:
        """Return a fresh accumulator of the task's metrics."""

    @abstractmethod
    def draw(self, image: NDArray[np.uint8], prediction: Prediction) -> NDArray[np.uint8]:
        """Return a picture [h, w, 3] of the image and the prediction side by side."""
