"""Training a model on a task: phases, validation and checkpoints around Keras' own loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from edgeheads.compression.prune.magnitude import MagnitudePruning
from edgeheads.errors import EdgeheadsError
from edgeheads.progress import Progress, SilentProgress, Step
from edgeheads.tasks.base import Array, Loss
from edgeheads.training.batches import Batches
from edgeheads.training.checkpoint import Checkpoint, State
from edgeheads.training.distribution import Distribution
from edgeheads.training.history import History, Validation
from edgeheads.training.interrupt import Interrupt, held_interrupt
from edgeheads.training.optimizer import (
    Optimization,
    Phase,
    make_optimizer,
    plan_phases,
    schedule,
)
from edgeheads.training.trainer import Trainer, synchronize
from edgeheads.training.validation import Validator

__all__ = ["Training", "fit"]

# Drawing the curves takes a good part of a second.
_LOG_SECONDS = 20.0


def fit(
    model: keras.Model,
    batches: Batches,
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
        The loss of each step.

    Raises:
        EdgeheadsError: the loss is no longer a finite number.
    """
    options = Optimization(learning_rate, weight_decay, warmup_fraction)
    return Training(model, model, batches, loss, options).run(progress).losses


@dataclass
class Training:
    """One training, which can be stopped and taken up again.

    Attributes:
        model: the flat graph that is wanted: the trained weights end up in it.
        trainee: what is trained, with as many `weights` in the same order: the same graph, or one
            of another precision.
        batches: what to train on, all phases together.
        loss: what to minimize; variables of its own are trained along.
        options: how the weights move.
        backbone: layers of `trainee` that can stay frozen.
        called: what computes the outputs, where that is not `trainee` itself but another model of
            the same variables.
        distribution: over devices.
        validator: judges the weights while they are trained; the best ones win.
        pruning: sets weights of `trainee` to zero on the way.
        checkpoint: where to keep the state.
        checkpoint_seconds: how often.
        log: called with the history whenever there is something new to show.
        history: what happened so far.
        seconds_per_step: medians of this process' steps; 0 before there are any.
    """

    model: keras.Model
    trainee: keras.Model
    batches: Batches
    loss: Loss
    options: Optimization
    backbone: Sequence[keras.layers.Layer] = ()
    called: keras.Model | None = None
    distribution: Distribution = field(default_factory=Distribution)
    validator: Validator | None = None
    pruning: MagnitudePruning | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_seconds: float = 60.0
    log: Callable[[History], None] | None = None
    history: History = field(default_factory=History)
    _best: list[Array] = field(default_factory=list)
    _step_seconds: list[float] = field(default_factory=list)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The stretches of the training."""
        return plan_phases(self.batches.num_batches, self.options.frozen_fraction)

    @property
    def seconds_per_step(self) -> float:
        """The median of the steps that this process took."""
        # The first one traces the graph.
        return float(np.median(self._step_seconds[1:])) if len(self._step_seconds) > 1 else 0.0

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0 over all phases."""
        phase = next(phase for phase in self.phases if step < phase.end)
        return float(schedule(self.options, phase.steps)(step - phase.first))

    def run(self, progress: Progress | None = None, *, resume: Checkpoint | None = None) -> History:
        """Train to the end, from the start or from a checkpoint.

        Raises:
            EdgeheadsError: the loss is no longer a finite number, or the checkpoint is missing or
                of another training.
            KeyboardInterrupt: after the state was saved, where there is a checkpoint.
        """
        state = self._restore(resume) if resume else None
        steps = self.batches.num_batches
        with (
            (progress or SilentProgress()).step("Training", steps) as step,
            held_interrupt(self.checkpoint is not None) as interrupt,
        ):
            step.advance(self.history.step)
            for phase in self.phases:
                if self.history.step < phase.end and not self.history.stopped:
                    self._run_phase(phase, state, step, interrupt)
                    state = None
        if self._best:
            self.model.set_weights(self._best)
        if self.pruning:
            # An average of weights remembers what they were before they were zero.
            self.pruning.apply(self.model)
        return self.history

    def _run_phase(
        self, phase: Phase, state: State | None, step: Step, interrupt: Interrupt
    ) -> None:
        for layer in self.backbone:
            layer.trainable = not phase.frozen
        _set_norm_momentum(self.trainee, phase.steps)
        with self.distribution.building():
            trainer = Trainer(
                self.called or self.trainee,
                self.loss,
                self.options.ema_decay,
                weights=self.trainee.weights,
                distribution=self.distribution,
            )
            backbone = [one for layer in self.backbone for one in layer.trainable_variables]
            optimizer = make_optimizer(
                trainer.trainable_variables, backbone, self.options, phase.steps
            )
            # TensorFlow's XLA compiler takes longer for one training than its code saves.
            trainer.compile(optimizer=optimizer, jit_compile=keras.backend.backend() == "jax")
        if state:
            _assign(_variables(trainer), state.arrays["variables"])
            _assign(optimizer.variables, state.arrays["optimizer"])
            if self.pruning:
                self.pruning.resume(self.history.step)
        start = self.history.step
        with self.distribution.fitting():
            trainer.fit(
                self.batches.window(start, phase.end - start),
                epochs=1,
                shuffle=False,
                verbose=0,
                callbacks=[
                    *([self.pruning] if self.pruning else []),
                    _AfterStep(self, phase, step, interrupt),
                ],
            )
        self._publish(trainer)

    def _publish(self, trainer: Trainer) -> None:
        """Put the weights as they are now, or their average, into the wanted model."""
        if self.model is not self.trainee or trainer.averages:
            self.model.set_weights(trainer.averaged())

    def validate(self, trainer: Trainer) -> bool:
        """Score the weights as they are now; return whether training should go on."""
        assert self.validator is not None  # noqa: S101 - the caller has looked
        synchronize(trainer)
        self._publish(trainer)
        with self.distribution.apart():
            metrics = self.validator()
        if self.history.add_validation(metrics, self.validator.judge):
            self._best = [np.array(one) for one in self.model.get_weights()]
        since = len(self.history.validations) - 1 - (self.history.best or 0)
        return not self.validator.patience or since < self.validator.patience

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint."""
        assert self.checkpoint is not None  # noqa: S101 - the caller has looked
        synchronize(trainer)
        arrays = {
            "variables": [ops.convert_to_numpy(one) for one in _variables(trainer)],
            "optimizer": [ops.convert_to_numpy(one) for one in trainer.optimizer.variables],
            "best": self._best,
        }
        self.checkpoint.save(State(arrays, asdict(self.history)))

    def _restore(self, checkpoint: Checkpoint) -> State:
        state = checkpoint.load()
        facts = dict(state.facts)
        facts["validations"] = [Validation(**one) for one in facts["validations"]]
        self.history = History(**facts)
        self._best = list(state.arrays.get("best", ()))
        return state


class _AfterStep(keras.callbacks.Callback):
    """What is due after each step: a look at the loss, validation, the checkpoint."""

    def __init__(self, training: Training, phase: Phase, step: Step, interrupt: Interrupt) -> None:
        super().__init__()
        self._training = training
        self._phase = phase
        self._progress = step
        self._interrupt = interrupt
        self._saved = self._logged = self._ended = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        training, history = self._training, self._training.history
        loss = float((logs or {})["step_loss"])
        training._step_seconds.append(time.monotonic() - self._ended)
        history.losses.append(loss)
        if not np.isfinite(loss):
            raise EdgeheadsError(
                f"training diverged: the loss is {loss} after {history.step} steps; "
                "lower training.learning_rate in the recipe, or check the data for wrong labels"
            )
        self._progress.advance(note=f"loss {np.mean(history.losses[-20:]):.3f}")
        validated = training.validator is not None and history.step in training.validator.steps
        if validated and not training.validate(self.model):
            # The frozen phase is cut short by nothing: its end is where fine-tuning begins.
            history.stopped = self.model.stop_training = self._phase.end == training.phases[-1].end
        self._keep()
        self._ended = time.monotonic()

    def _keep(self) -> None:
        training, stopping = self._training, self._interrupt.asked
        since = time.monotonic() - self._saved
        if training.checkpoint and (stopping or since >= training.checkpoint_seconds):
            training.save(self.model)
            self._saved = time.monotonic()
        since = time.monotonic() - self._logged
        if training.log and (stopping or since >= _LOG_SECONDS):
            training.log(training.history)
            self._logged = time.monotonic()
        if stopping:
            raise KeyboardInterrupt


def _variables(trainer: Trainer) -> list[Any]:
    """Return what a trainer's next step depends on: weights, averages and random generators."""
    metrics = {id(variable) for variable in trainer.metrics_variables}
    return [variable for variable in trainer.variables if id(variable) not in metrics]


def _assign(variables: Sequence[Any], values: Sequence[Array]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _set_norm_momentum(model: keras.Model, steps: int) -> None:
    """Let batch norm statistics average over the last tenth of training.

    keras.applications ships momentum 0.999: after 400 steps from a random start, two thirds of
    the statistics would still be the initial ones, and the model useless in inference.
    """
    momentum = min(0.999, max(0.8, 1 - 10 / steps))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
