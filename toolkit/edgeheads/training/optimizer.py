"""How the weights move: phases, learning rate, weight decay, clipping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

__all__ = ["Optimization", "Phase", "make_optimizer", "plan_phases", "schedule"]


@dataclass(frozen=True)
class Optimization:
    """How the weights move.

    Attributes:
        learning_rate: at its peak.
        weight_decay: of kernels.
        warmup_fraction: share of a phase's steps until the peak.
        backbone_rate: the backbone's learning rate, as a share of the head's.
        clip_norm: of the gradient of all weights together; 0: as it comes.
        ema_decay: of the average of the weights; 0: none.
        frozen_fraction: share of all steps in which the backbone stays as it is.
        scale_loss: scale the loss so that float16 gradients do not vanish.
    """

    learning_rate: float
    weight_decay: float = 0.0
    warmup_fraction: float = 0.1
    backbone_rate: float = 1.0
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    frozen_fraction: float = 0.0
    scale_loss: bool = False


@dataclass(frozen=True)
class Phase:
    """A stretch of training with a schedule of its own.

    Attributes:
        title: for logs.
        first: its first step, counted over all phases.
        steps: how many.
        frozen: the backbone stays as it is.
    """

    title: str
    first: int
    steps: int
    frozen: bool = False

    @property
    def end(self) -> int:
        """The step after its last."""
        return self.first + self.steps


def plan_phases(steps: int, frozen_fraction: float) -> tuple[Phase, ...]:
    """Return the phases of a training: the head alone on a frozen backbone, then everything.

    Each has a warm-up and a cosine decay to zero of its own, as in fastai's `fine_tune`.
    """
    frozen = min(steps - 1, round(steps * frozen_fraction))
    if frozen < 1:
        return (Phase("training", 0, steps),)
    return (
        Phase("frozen backbone", 0, frozen, frozen=True),
        Phase("fine-tuning", frozen, steps - frozen),
    )


def make_optimizer(
    variables: Sequence[Any], backbone: Sequence[Any], options: Optimization, steps: int
) -> keras.optimizers.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) that decays kernels only, not biases and norm scales.

    Args:
        variables: what is trained.
        backbone: those of them that move at the backbone's rate.
        options: see `Optimization`.
        steps: of the schedule.
    """
    slow = {id(variable) for variable in backbone}
    optimizer = _AdamW(
        schedule(options, steps),
        rates=[options.backbone_rate if id(one) in slow else 1.0 for one in variables],
        weight_decay=options.weight_decay,
        global_clipnorm=options.clip_norm or None,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    # Variables made inside the first step would have TensorFlow trace the whole step twice.
    optimizer.build(variables)
    if not options.scale_loss:
        return optimizer
    scaled = keras.optimizers.LossScaleOptimizer(optimizer)
    scaled.build(variables)
    return scaled


def schedule(options: Optimization, steps: int) -> Any:
    """Return step -> learning rate: a linear warm-up, then a cosine decay to zero."""
    warmup = int(steps * options.warmup_fraction)
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else options.learning_rate,
        decay_steps=max(1, steps - warmup),
        warmup_target=options.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


class _AdamW(keras.optimizers.AdamW):
    """AdamW with a share of the learning rate for each variable."""

    def __init__(self, learning_rate: Any, *, rates: Sequence[float], **options: Any) -> None:
        super().__init__(learning_rate, name="adamw", **options)
        self._rates = tuple(rates)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate = self._rates[self._get_variable_index(variable)]
        super().update_step(
            gradient, variable, learning_rate * rate if rate != 1 else learning_rate
        )
