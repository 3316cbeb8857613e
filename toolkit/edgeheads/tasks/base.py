"""What a task is: everything the pipeline must know about it, in one room."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks.task_type import TaskType

__all__ = ["Array", "Evaluator", "Loss", "Metric", "Prediction", "Task", "part_of", "rounded"]

Array = NDArray[Any]
Prediction = dict[str, Array]

# (targets, outputs) -> the scalar loss of a batch. A `keras.layers.Layer` may be one, with
# variables that are trained along.
Loss = Callable[[Mapping[str, Any], Mapping[str, Any]], Any]


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
        change = self.difference(reference, value)
        # Not its negative, which of no change is a zero with a sign.
        return 0.0 - change if self.higher_is_better else change

    def difference(self, reference: float, value: float) -> float:
        """Return value - reference, as a share of the reference where the drop is one."""
        change = value - reference
        if not self.drop_is_relative:
            return change
        return change / abs(reference) if reference else (0.0 if change == 0 else float("inf"))

    def format(self, difference: float) -> str:
        """Return a difference as text: in percent of a value, in its unit, or in points."""
        if self.drop_is_relative:
            return f"{rounded(difference * 100, 1):+.1f} %"
        if self.unit:
            return f"{rounded(difference, 3):+.3f} {self.unit}"
        return f"{rounded(difference * 100, 2):+.2f} points"


class Evaluator(ABC):
    """Accumulates predictions against labels; how they are batched makes no difference."""

    @abstractmethod
    def update(self, prediction: Prediction, sample: Sample) -> None:
        """Take one image's prediction into account."""

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """Return {"metrics": {name: value}, "counts": {...}, "ranges": {...}} of all updates."""


class Task(ABC):
    """One task. Nothing at import time, and nothing after the Bundle, needs more than NumPy.

    Args:
        options: the recipe's `head.options`.
    """

    type: ClassVar[TaskType]
    title: ClassVar[str]
    default_recipe: ClassVar[str]
    # Names from `data.augment.AUGMENTATIONS` that keep the task's labels true.
    augmentations: tuple[str, ...]
    metrics: tuple[Metric, ...]
    protocol: str

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options: Mapping[str, Any] = options or {}

    def parts(self) -> dict[str, Task]:
        """Return the tasks that this one is made of, by name; none, but for several in one."""
        return {}

    # Before the Bundle

    def head_options(self, names: LabelNames) -> dict[str, Any]:
        """Return the options of the head that the labels decide, such as the number of classes.

        Raises:
            EdgeheadsError: the source has no labels of the task's kind.
        """
        return {}

    def head_config(self, preset: Mapping[str, Any], names: LabelNames) -> dict[str, Any]:
        """Return all options of the head: a preset's, then what the labels decide, then its own.

        A preset's upsampling factor is for a head by itself; in the pipeline a map is as large as
        the network's input, unless the recipe says otherwise.
        """
        config = {key: value for key, value in preset.items() if key != "upsampling_factor"}
        return {**config, **self.head_options(names), **self.options}

    def labels(self, names: LabelNames) -> tuple[str, ...]:
        """Return the names that the outputs' last axis stands for, if it stands for any."""
        return ()

    @abstractmethod
    def check(self, sample: Sample) -> None:
        """Raise EdgeheadsError if the sample lacks the task's label, or has one that is wrong."""

    def accepts(self, sample: Sample) -> bool:
        """Return whether the sample passes `check`."""
        try:
            self.check(sample)
        except EdgeheadsError:
            return False
        return True

    @abstractmethod
    def target(
        self, sample: Sample, size: tuple[int, int], decoding: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Return what the loss compares the outputs with: arrays of the same shapes every time.

        Args:
            sample: of any size.
            size: (height, width) of the network's input.
            decoding: what `edge_outputs` returned.
        """

    @abstractmethod
    def loss(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """Return the scalar training loss of a batch, with keras.ops."""

    def training_loss(
        self,
        names: LabelNames,
        samples: Iterable[Sample],
        task_weights: Mapping[str, float] | None = None,
    ) -> Loss:
        """Return the loss for one training, which may depend on how often each class occurs.

        Args:
            names: of the labels.
            samples: that are trained on.
            task_weights: {part: factor of its loss}, for several tasks in one; None learns them.
        """
        return self.loss

    @abstractmethod
    def edge_outputs(self, model: Any, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Choose the tensors of a Keras model that the .tflite file returns.

        They are those that int8 keeps best, usually in front of the last non-linear step.

        Args:
            model: a flat graph.
            prefix: of the names of the head's layers, such as "depth" or "multi_task_depth".

        Returns:
            {output name: symbolic tensor}, and the `decoding` that turns them into a prediction:
            plain JSON values.
        """

    @abstractmethod
    def baseline(self, samples: Iterable[Sample], names: LabelNames) -> dict[str, Any]:
        """Return the trivial predictor learned from training samples, as plain JSON values.

        "kind" says what it does, for tables; the rest is for `predict_baseline`.
        """

    # After the Bundle

    @abstractmethod
    def decode(self, outputs: Mapping[str, Array], decoding: Mapping[str, Any]) -> Prediction:
        """Turn one image's real-valued outputs [1, ...] into a prediction.

        Places in the image are fractions of its width and height, since the network sees it at
        another size.
        """

    def decode_each(
        self, outputs: Mapping[str, Array], decoding: Mapping[str, Any]
    ) -> list[Prediction]:
        """Turn the real-valued outputs [N, ...] of N images into a prediction each."""
        count = len(next(iter(outputs.values())))
        return [
            self.decode({name: array[i : i + 1] for name, array in outputs.items()}, decoding)
            for i in range(count)
        ]

    @abstractmethod
    def predict_baseline(self, baseline: Mapping[str, Any], size: tuple[int, int]) -> Prediction:
        """Return what the trivial predictor says of any image of (height, width)."""

    @abstractmethod
    def evaluator(self, decoding: Mapping[str, Any]) -> Evaluator:
        """Return a fresh accumulator of the task's metrics."""

    @abstractmethod
    def draw(
        self, image: NDArray[np.uint8], prediction: Prediction, labels: tuple[str, ...] = ()
    ) -> NDArray[np.uint8]:
        """Return a picture [h, w, 3] of the image and the prediction side by side."""

    @abstractmethod
    def draw_label(
        self, image: NDArray[np.uint8], sample: Sample, names: LabelNames
    ) -> NDArray[np.uint8]:
        """Return the image [h, w, 3], of any size, with the sample's own label drawn on it."""


def rounded(value: float, digits: int) -> float:
    """Return a value as it is to be printed: what rounds to zero has no sign."""
    return round(value, digits) + 0.0


def part_of(model: Any, prefix: str, part: str) -> Any:
    """Return the symbolic output of the head's layer `part` in a flat graph.

    Raises:
        EdgeheadsError: the graph has none of that name.
    """
    name = f"{prefix}_{part}"
    for layer in model.layers:
        if layer.name == name:
            return layer.output
    raise EdgeheadsError(
        f"the model has no layer {name!r}, whose output the file would return; "
        "convert a model that edgeheads built, or build one: build_model(backbone, task)"
    )
