"""The Keras model that is trained: a network, a task's loss, and the average of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from edgeheads.tasks.base import Array, Loss
from edgeheads.training.distribution import Distribution

__all__ = ["Trainer", "synchronize"]


class Trainer(keras.Model):
    """Lets Keras' training loop call a task's loss, which sees all outputs at once.

    Args:
        model: what is trained.
        loss: what to minimize. One that is a layer has made its variables in its constructor;
            they are trained along.
        ema_decay: in [0, 1). Above 0, an exponential moving average of every weight is kept,
            batch norm's statistics included (Tarvainen & Valpola 2017, "Mean teachers"). After n
            steps the decay is (1 + n) / (10 + n) at most, so that a short training forgets its
            start.
        weights: those of the model in the order in which they are wanted.
        distribution: over devices; where each replica computes a loss of its own, the gradients
            are added up.

    Attributes:
        averages: the averaged values, in the order of `weights`; empty without a decay.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: Loss,
        ema_decay: float = 0.0,
        *,
        weights: Sequence[Any] | None = None,
        distribution: Distribution | None = None,
    ) -> None:
        super().__init__(name="trainer", dtype="float32")
        self.model = model
        self.distribution = distribution or Distribution()
        # A loss that is a layer is tracked like any, so that its variables are trained.
        self.task_loss = loss
        self.step_loss = _Latest(name="step_loss")
        self.ema_decay = ema_decay
        # In a tuple, lest Keras takes them for the trainer's own, in another order.
        self._averaged_weights = tuple(model.weights if weights is None else weights)
        self.averages: list[Any] = []
        if ema_decay:
            self.updates = self._state((), "updates")
            for index, weight in enumerate(self._averaged_weights):
                average = self._state(tuple(weight.shape), f"average_{index}")
                # A copy: JAX gives buffers away, and cannot give the same one away twice.
                average.assign(np.array(ops.convert_to_numpy(weight)))
                self.averages.append(average)

    def build(self, input_shape: Any) -> None:
        """Nothing is left to build: the network is a graph, and the loss has its variables."""
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Compute the network's outputs."""
        return self.model(x, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any, **__: Any
    ) -> Any:
        """Return the task's loss of a batch, and remember it for the logs."""
        loss = self.task_loss(y, y_pred)
        self.step_loss.update_state(loss)
        replicas = self.distribution.replicas
        return loss / replicas if replicas > 1 else loss

    def train_step(self, *arguments: Any) -> Any:
        """Take one step, then move the averages: Keras' signature differs between backends."""
        result = super().train_step(*arguments)
        if self.averages and keras.backend.backend() == "jax":
            logs, state = result
            return logs, self._moved(state)
        if self.averages:
            self._move()
        if self.distribution.workers > 1:
            # Keras averages the first axis over workers, which a scalar does not have.
            return {name: ops.reshape(value, (1,)) for name, value in result.items()}
        return result

    def _move(self) -> None:
        decay = self._decay(self.updates)
        for average, weight in zip(self.averages, self._averaged_weights, strict=True):
            average.assign(decay * average + (1 - decay) * ops.cast(weight, average.dtype))
        self.updates.assign(self.updates + 1)

    def averaged(self) -> list[Array]:
        """Return the values to use the network with, in the order of `weights`."""
        synchronize(self)
        return [
            np.array(ops.convert_to_numpy(one)) for one in self.averages or self._averaged_weights
        ]

    def _maybe_symbolic_build(self, *_: Any, **__: Any) -> None:
        """Leave out what Keras does before training on a `tf.distribute` strategy.

        It cannot average a batch of several workers to build a model from; and everything here
        is built.
        """

    def _moved(self, state: Any) -> Any:
        """Return JAX's state with the averages moved."""
        learned, rest, *others = state
        values = {
            variable.path: value
            for variables, given in (
                (self.trainable_variables, learned),
                (self.non_trainable_variables, rest),
            )
            for variable, value in zip(variables, given, strict=True)
        }
        decay = self._decay(values[self.updates.path])
        moved = {self.updates.path: values[self.updates.path] + 1}
        for average, weight in zip(self.averages, self._averaged_weights, strict=True):
            moved[average.path] = decay * values[average.path] + (1 - decay) * values[weight.path]
        rest = [
            moved.get(variable.path, value)
            for variable, value in zip(self.non_trainable_variables, rest, strict=True)
        ]
        return (learned, rest, *others)

    def _decay(self, updates: Any) -> Any:
        return ops.minimum(self.ema_decay, (1.0 + updates) / (10.0 + updates))

    def _state(self, shape: tuple[int, ...], name: str) -> Any:
        return self.add_weight(
            shape=shape,
            initializer="zeros",
            trainable=False,
            name=name,
            aggregation="only_first_replica",
        )


def synchronize(trainer: keras.Model) -> None:
    """Give the variables their present values: on JAX the loop holds them while it runs."""
    if keras.backend.backend() == "jax":
        trainer.jax_state_sync()


class _Latest(keras.metrics.Metric):
    """The value of the last step alone; Keras' own "loss" is the mean since the start."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.value = self.add_variable((), "zeros", aggregation="mean", name="value")

    def update_state(self, value: Any) -> None:
        self.value.assign(ops.cast(value, "float32"))

    def result(self) -> Any:
        return self.value + 0.0

    def reset_state(self) -> None:
        self.value.assign(0.0)
