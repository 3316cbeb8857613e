"""Quantization-aware training of a model of ours: its recipe knows the task and the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from edgeheads.compression.prune.magnitude import KeepZeros, MagnitudePruning
from edgeheads.compression.quantize.qat import QuantizeAware, quantize_aware
from edgeheads.compression.sensitivity.held_out import HeldOut
from edgeheads.data.sample import Sample
from edgeheads.edge_model import EdgeModel, file_outputs
from edgeheads.errors import EdgeheadsError
from edgeheads.export.compact import compact
from edgeheads.export.tflite import convert_to_tflite
from edgeheads.progress import Progress, SilentProgress
from edgeheads.recipe import Recipe
from edgeheads.runtime import DeviceSession
from edgeheads.tasks.base import Task
from edgeheads.train import TrainingData, prepare_training
from edgeheads.training.distribution import Distribution
from edgeheads.training.fit import Training

__all__ = ["QatReport", "TrainedForInt8", "train_for_int8"]


@dataclass(frozen=True)
class QatReport:
    """What training for int8 brought, on samples that no model was trained on.

    Attributes:
        metric: the task's, its title.
        samples: how many it was measured on.
        steps: of the training.
        observer: how the ranges went on.
        float32: the metric of the Keras model before.
        ptq: of its int8 file, quantized after training.
        qat: of the int8 file of quantization-aware training; None where it diverged.
        kept: whether that was better, so that it is what the Bundle holds.
        per_channel: whether each channel of a kernel has a scale of its own in these files.
        unrounded: layers with weights that the file rounds and training did not.
    """

    metric: str
    samples: int
    steps: int
    observer: str
    float32: float
    ptq: float
    qat: float | None
    kept: bool
    per_channel: bool = True
    unrounded: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        weights = "" if self.per_channel else ", one scale for each kernel"
        after = "diverged" if self.qat is None else f"{self.qat:.4f}"
        if self.kept:
            end = "kept"
        else:
            end = "no better, so the float model is quantized as it was"
            if self.qat is None:
                end += "; lower quantize_aware.rate"
        text = (
            f"Quantization-aware training, {self.steps} steps{weights}: {self.metric} on "
            f"{self.samples} samples held out of training: float32 {self.float32:.4f}, int8 "
            f"{self.ptq:.4f}, int8 after it {after}: {end}"
        )
        if self.unrounded:
            text += (
                f". Its layers {', '.join(self.unrounded)} have weights that training left "
                "unrounded and the file rounds"
            )
        return text


@dataclass(frozen=True)
class TrainedForInt8:
    """A model after quantization-aware training.

    Attributes:
        edge: computes as the int8 file does.
        aware: what it is made of.
        report: what it brought.
    """

    edge: EdgeModel
    aware: QuantizeAware
    report: QatReport

    def to_tflite(self, precision: str) -> bytes:
        """Return the file, with weights and ranges as trained.

        Args:
            precision: a scheme with int8 activations.
        """
        return compact(self.aware.to_tflite(precision))


def train_for_int8(
    edge: EdgeModel,
    recipe: Recipe,
    task: Task,
    data: TrainingData,
    held_out: Sequence[Sample],
    session: DeviceSession,
    progress: Progress | None = None,
    *,
    per_channel: bool = True,
) -> TrainedForInt8:
    """Fine-tune a model with the rounding of its int8 file, and compare.

    Args:
        edge: the trained model; it is not changed.
        recipe: its `quantize_aware` section says how, `training` the rest.
        task: the recipe's.
        data: to train on, and to calibrate with.
        held_out: of `held_out_samples`: decides whether training helped; never the test set.
        session: runs the files.
        progress: where to report.
        per_channel: give each channel of the weights a scale of its own.

    Raises:
        EdgeheadsError: custom layers, or data that cannot be trained on.
    """
    section = recipe.quantize_aware
    images = edge.inputs_of(data.samples[: recipe.export.calibration_samples])
    aware = quantize_aware(
        edge.model,
        images,
        calibration=recipe.export.calibration,
        observer=section.observer,
        per_channel=per_channel,
        outputs_of=file_outputs(task),
    )
    rounded = replace(edge, model=aware.model, outputs=aware.file_outputs())
    training = prepare_training(rounded, _tuning(recipe), task, data, Distribution())
    diverged = _diverges(training, aware, progress or SilentProgress())
    scores = HeldOut(edge, task, held_out, session)
    plain = convert_to_tflite(
        edge.model.inputs[0],
        edge.outputs,
        "int8",
        images,
        calibration=recipe.export.calibration,
        per_channel=per_channel,
    )
    ptq = scores.value_of(plain)
    qat = None if diverged else scores.value_of(compact(aware.to_tflite()))
    report = QatReport(
        scores.metric.title,
        len(held_out),
        section.steps,
        section.observer,
        scores.reference,
        ptq,
        qat,
        kept=qat is not None and scores.metric.drop(ptq, qat) < 0,
        per_channel=per_channel,
        unrounded=aware.unrounded,
    )
    return TrainedForInt8(rounded, aware, report)


def _diverges(training: Training, aware: QuantizeAware, progress: Progress) -> bool:
    """Train, and tell whether the weights are no numbers now."""
    training.pruning = _ZerosStay(aware.model)
    # What decides between the files may not choose the weights of one of them.
    training.validator = None
    try:
        training.run(progress)
    except EdgeheadsError:
        # The float model is there, and is what a training that fails leaves.
        if all(np.isfinite(training.history.losses)):
            raise
        return True
    return not aware.finite


class _ZerosStay(MagnitudePruning):
    """Keeps the zeros that the model came with, and makes no others."""

    def __init__(self, model: Any) -> None:
        KeepZeros.__init__(self, model)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Put zeros back that the optimizer moved."""
        KeepZeros.on_train_batch_end(self, batch, logs)

    def resume(self, step: int) -> None:
        """The masks are those of the start."""


def _tuning(recipe: Recipe) -> Recipe:
    """Return the recipe of the fine-tuning: the rounding graph itself, in float32."""
    section = recipe.quantize_aware
    return recipe.with_values(
        **{
            "training.steps": section.steps,
            "training.learning_rate": recipe.training.learning_rate * section.rate,
            "training.frozen_fraction": 0.0,
            "training.precision": "float32",
            "training.ema_decay": 0.0,
            "training.recompute": False,
            "training.patience": 0,
            "prune.target": None,
            "prune.sparsity": 0.0,
        }
    )
