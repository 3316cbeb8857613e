"""Recovery by distillation: the model as it was teaches the pruned one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from edgeheads.edge_model import EdgeModel
from edgeheads.tasks.base import Array, Loss
from edgeheads.training.batches import Batches
from edgeheads.training.fit import Training

__all__ = ["DistillationLoss", "TaughtBatches", "teach", "unexplained", "with_taught_outputs"]

# A teacher's output that is the same everywhere has no spread to compare differences with.
_LEAST_SPREAD = 1e-6


class DistillationLoss(keras.layers.Layer):
    """A task's loss, plus how far a model is from its teacher (Hinton et al. 2015, "Distilling
    the Knowledge in a Neural Network"), see `unexplained`.

    Called with ({"task": the task's targets, "teacher": {output: tensor}}, {"task": the task's
    outputs, "taught": {output: tensor}}); returns a scalar.

    Args:
        loss: the task's. Where it is a layer, its variables are trained along.
        weight: of the distance to the teacher, above 0.
    """

    def __init__(self, loss: Loss, weight: float) -> None:
        super().__init__(name="distillation_loss", dtype="float32", autocast=False)
        self.task_loss = loss
        self.weight = weight
        self.built = True

    def call(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """Return the loss of a batch."""
        distance = unexplained(targets["teacher"], outputs["taught"])
        loss = ops.cast(self.task_loss(targets["task"], outputs["task"]), "float32")
        return loss + self.weight * distance


def unexplained(teacher: Mapping[str, Any], taught: Mapping[str, Any]) -> Any:
    """Return the share of the teacher's variance that a model misses, the mean of its outputs.

    That is the mean squared difference divided by the variance of what the teacher says of the
    batch: 0 for the teacher itself, 1 for whoever always says its mean. It needs no temperature,
    is the same for logits, boxes and maps, and in logits it is what a high temperature tends to
    (Ba & Caruana 2014, "Do Deep Nets Really Need to be Deep?").

    Args:
        teacher: {output: [B, ...]}.
        taught: likewise.
    """
    shares = []
    for name, said in teacher.items():
        # A model may compute in 16 bits, which are too few for squares.
        wanted, found = ops.cast(said, "float32"), ops.cast(taught[name], "float32")
        spread = ops.maximum(ops.var(wanted), _LEAST_SPREAD)
        shares.append(ops.mean(ops.square(found - wanted)) / spread)
    return sum(shares) / len(shares)


class TaughtBatches(Batches):
    """Batches with what a teacher says of each, in the form `DistillationLoss` takes.

    Args:
        batches: of inputs [B, H, W, 3] and the task's targets.
        teacher: inputs -> {output: [B, ...]}.
    """

    def __init__(self, batches: Batches, teacher: Callable[[Array], Mapping[str, Array]]) -> None:
        super().__init__()
        self._batches = batches
        self._teacher = teacher

    def window(self, first: int, steps: int) -> TaughtBatches:
        """See `Batches.window`."""
        return TaughtBatches(self._batches.window(first, steps), self._teacher)

    @property
    def num_batches(self) -> int:
        """See `Batches.num_batches`."""
        return self._batches.num_batches

    @property
    def num_samples(self) -> int:
        """See `Batches.num_samples`."""
        return self._batches.num_samples

    def __getitem__(self, index: int) -> tuple[Array, dict[str, Any]]:
        """Return batch `index`: network input, and the targets of both."""
        inputs, targets = self._batches[index]
        return inputs, {"task": targets, "teacher": dict(self._teacher(inputs))}


def teach(training: Training, edge: EdgeModel, teacher: EdgeModel, weight: float) -> None:
    """Have a training listen to a teacher, too; it costs a forward pass of it a step.

    What is compared are the outputs that the file returns: they come before the last non-linear
    step, and before anything that picks or sorts.

    Args:
        training: of `edge`, not begun.
        edge: the model that is trained.
        teacher: with outputs of the same names and shapes; it is not changed.
        weight: of the teacher beside the labels.
    """
    graph = keras.Model(teacher.model.inputs[0], teacher.outputs)
    training.loss = DistillationLoss(training.loss, weight)
    training.batches = TaughtBatches(training.batches, graph.predict_on_batch)
    training.called = with_taught_outputs(edge.model, edge.outputs)


def with_taught_outputs(model: keras.Model, outputs: Mapping[str, Any]) -> keras.Model:
    """Return the same variables as a model that also returns what is compared with the teacher."""
    return keras.Model(model.inputs[0], {"task": model.output, "taught": dict(outputs)})
