"""From a trained model and its recipe to what int8 costs each layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeheads.compression.quantize.mixed import MixedResult, mixed_precision
from edgeheads.compression.sensitivity.errors import LayerError, analyse
from edgeheads.compression.sensitivity.held_out import HeldOut, held_out_samples
from edgeheads.compression.sensitivity.layers import Layer, find_layers
from edgeheads.edge_model import load
from edgeheads.export.tflite import convert_to_float_tflite
from edgeheads.progress import Progress, SilentProgress
from edgeheads.recipe import Recipe
from edgeheads.runtime import DeviceSession
from edgeheads.tasks import get_task
from edgeheads.tasks.base import Metric
from edgeheads.train import read_training_data, set_up_backend

__all__ = ["SensitivityResult", "find_sensitivity"]


@dataclass(frozen=True)
class SensitivityResult:
    """What int8 costs each layer.

    Attributes:
        layers: the most sensitive first.
        images: so many were run.
        held_out: so many were scored; 0: none.
        metric: of the drops; None: not scored.
        reference: the float model's metric.
        mixed: the file that stays within the budget, where one was asked for.
    """

    layers: list[LayerError]
    images: int
    held_out: int = 0
    metric: Metric | None = None
    reference: float | None = None
    mixed: MixedResult | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "unit": "dB",
            "images": self.images,
            "held_out": self.held_out,
            "metric": self.metric and self.metric.name,
            "reference": self.reference,
            "layers": [one.as_json() for one in self.layers],
            "mixed": self.mixed and self.mixed.as_json(),
        }


def find_sensitivity(
    model_file: Path,
    recipe: Recipe,
    *,
    samples: int = 32,
    with_metric: bool = False,
    max_drop: float | None = None,
    per_channel: bool = True,
    progress: Progress | None = None,
) -> SensitivityResult:
    """Quantize each layer of a model alone, and measure what that costs.

    Args:
        model_file: a trained `.keras` model.
        recipe: its; ranges are measured by its export.calibration.
        samples: training images to calibrate and measure with; with the metric, also how many
            held-out samples to score.
        with_metric: score each file with the task's metric, too.
        max_drop: also make a file of mixed precision whose metric is at most so much worse than
            the float model's: in points (hundredths), percent where the metric's drop is
            relative, or the metric's unit.
        per_channel: give each channel of the weights a scale of its own.
        progress: where to report.

    Raises:
        BudgetError: no file is within `max_drop`.
        EdgeheadsError: a model, data or recipe that cannot be used; see `held_out_samples` and
            `HeldOut.budget`.
    """
    progress = progress or SilentProgress()
    task = get_task(recipe.task, recipe.head.options)
    set_up_backend(recipe.seed)
    data = read_training_data(recipe, task, progress)
    edge = load(model_file, recipe, task, data.names)
    chosen = data.samples[:samples]
    images = edge.inputs_of(chosen)
    scored = with_metric or max_drop is not None
    held_out = held_out_samples(recipe, task, data.samples, samples) if scored else []
    with progress.step("Converting to float32"):
        float_model = convert_to_float_tflite(
            edge.model.inputs[0], edge.outputs, equalized_on=None if per_channel else images
        )
    with DeviceSession() as session:
        scorer = HeldOut(edge, task, held_out, session) if scored else None
        # Asked for before minutes of measuring: some models have none.
        budget = scorer.budget(max_drop) if scorer and max_drop is not None else None
        total = len(find_layers(float_model))
        with progress.step("Quantizing each layer alone", total) as step:

            def advance(layer: Layer) -> None:
                step.advance()

            layers = analyse(
                float_model,
                images,
                calibration=recipe.export.calibration,
                per_channel=per_channel,
                drop_of=scorer.drop_of if scorer and with_metric else None,
                on_layer=advance,
            )
        mixed = None
        if scorer and budget is not None:
            with progress.step("Searching the fewest float layers"):
                mixed = mixed_precision(
                    float_model,
                    images,
                    scorer.drop_of,
                    budget,
                    calibration=recipe.export.calibration,
                    per_channel=per_channel,
                    order=[one.layer.name for one in layers],
                    metric=scorer.metric.title,
                )
    return SensitivityResult(
        layers,
        len(chosen),
        len(held_out),
        scorer.metric if scorer else None,
        scorer.reference if scorer else None,
        mixed,
    )
