"""Training a model on a task."""

from __future__ import annotations

from typing import Any

import keras

from edgeheads.errors import EdgeheadsError
from edgeheads.progress import Progress, SilentProgress, Step
from edgeheads.tasks.base import Loss
from edgeheads.training.batches import TrainingBatches

__all__ = ["fit"]


def fit(
    model: keras.Model,
    batches: TrainingBatches,
    loss: Loss,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    warmup_fraction: float = 0.1,
    progress: Progress | None = None,
) -> list[float]:
    """Train a model in place: AdamW with a linear warm-up and a cosine decay to zero.

    Args:
        model: a flat graph.
        batches: what to train on.
        loss: what to minimize; variables of its own are trained along.
        learning_rate: at its peak.
        weight_decay: of kernels.
        warmup_fraction: of the steps.
        progress: where to report.

    Returns:
        The running mean of the loss after each step.

    Raises:
        EdgeheadsError: the loss is no longer a finite number.
    """
    steps = batches.num_batches
    _set_norm_momentum(model, steps)
    warmup = int(steps * warmup_fraction)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else learning_rate,
        decay_steps=max(1, steps - warmup),
        warmup_target=learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    trainer = _Trainer(model, loss)
    trainer.compile(optimizer=_optimizer(trainer, schedule, weight_decay), jit_compile=False)
    with (progress or SilentProgress()).step("Training", steps) as step:
        report = _Report(step)
        trainer.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=[report])
    return report.losses


def _optimizer(
    model: keras.Model, schedule: Any, weight_decay: float
) -> keras.optimizers.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) that decays kernels only, not biases and norm scales."""
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    # Variables made inside the first step would have TensorFlow trace the whole step twice.
    optimizer.build(model.trainable_variables)
    return optimizer


class _Trainer(keras.Model):
    """Lets Keras' training loop call a task's loss, which sees all outputs at once."""

    def __init__(self, model: keras.Model, loss: Loss) -> None:
        super().__init__(name="trainer")
        self.model = model
        # A loss that is a layer is tracked like any, so that its variables are trained.
        self.task_loss = loss

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.model(x, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any, **__: Any
    ) -> Any:
        return self.task_loss(y, y_pred)


class _Report(keras.callbacks.Callback):
    def __init__(self, step: Step) -> None:
        super().__init__()
        self._step = step
        self.losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = float((logs or {})["loss"])
        if loss != loss or abs(loss) == float("inf"):
            raise EdgeheadsError(
                f"training diverged: the loss is {loss} after {batch + 1} steps; "
                "lower training.learning_rate in the recipe, or check the data for wrong labels"
            )
        self.losses.append(loss)
        self._step.advance(note=f"loss {loss:.3f}")


def _set_norm_momentum(model: keras.Model, steps: int) -> None:
    """Let batch norm statistics average over the last tenth of training.

    keras.applications ships momentum 0.999: after 400 steps from a random start, two thirds of
    the statistics would still be the initial ones, and the model useless in inference.
    """
    momentum = min(0.999, max(0.8, 1 - 10 / steps))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
