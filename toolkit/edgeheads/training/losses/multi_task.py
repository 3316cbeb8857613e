"""The loss of several tasks on one trunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from edgeheads.errors import EdgeheadsError
from edgeheads.tasks.base import Loss

__all__ = ["MultiTaskLoss"]

# exp(2): no task weighs more than seven times, or less than a seventh of, its own loss. Without a
# bound, a loss that can fall below zero would be multiplied without end.
_BOUND = 2.0


class MultiTaskLoss(keras.layers.Layer):
    """The weighted sum of the tasks' losses.

    Without `weights` they are learned: the sum of exp(-s) * loss + s over the tasks, s being a
    variable of each (Kendall, Gal & Cipolla 2018, "Multi-Task Learning Using Uncertainty to Weigh
    Losses"), kept within [-2, 2]. A task whose loss stays large weighs less.

    Called with ({"<task>/<target>": tensor}, {task: its outputs}); returns a scalar.

    Args:
        losses: {task: its loss}.
        weights: {task: factor}, for every task, at least 0; None learns them.

    Raises:
        EdgeheadsError: weights that are not one for each task.
    """

    def __init__(
        self, losses: Mapping[str, Loss], weights: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(name="multi_task_loss", dtype="float32", autocast=False)
        if weights is not None and (
            set(weights) != set(losses) or min(weights.values(), default=0) < 0
        ):
            raise EdgeheadsError(
                f"task weights must be one number of at least 0 for each of {', '.join(losses)}, "
                f"received {dict(weights)}"
            )
        self.losses_by_task = dict(losses)
        self.weights_by_task = None if weights is None else dict(weights)
        self.log_scales: dict[str, Any] = {}
        if weights is None:
            for task in losses:
                self.log_scales[task] = self.add_weight(
                    shape=(), initializer="zeros", name=f"{task.replace('-', '_')}_log_scale"
                )
        self.built = True

    def call(self, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """Return the loss of a batch."""
        total = 0.0
        for task, loss in self.losses_by_task.items():
            own = {
                name.removeprefix(f"{task}/"): target
                for name, target in targets.items()
                if name.startswith(f"{task}/")
            }
            value = loss(own, outputs[task])
            if self.weights_by_task is not None:
                total = total + self.weights_by_task[task] * value
            else:
                scale = ops.clip(self.log_scales[task], -_BOUND, _BOUND)
                total = total + ops.exp(-scale) * value + scale
        return total
