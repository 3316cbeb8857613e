"""What a rewrite changes where it counts: the task's metric and the time of the int8 files."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from edgeheads.bench.latency import IN_TURN, compare
from edgeheads.compression.sensitivity.held_out import HeldOut, held_out_samples
from edgeheads.device import DeviceProfile
from edgeheads.edge_model import EdgeModel, load
from edgeheads.export.tflite import convert_to_tflite
from edgeheads.progress import Progress
from edgeheads.recipe import Recipe
from edgeheads.runtime import DeviceSession
from edgeheads.tasks import get_task
from edgeheads.tasks.base import Metric
from edgeheads.train import read_training_data, set_up_backend

__all__ = ["Effect", "Int8File", "measure_effect"]

_HELD_OUT = 128
_ROUNDS = 3


@dataclass(frozen=True)
class Int8File:
    """An int8 file of a model.

    Attributes:
        value: the task's metric, on samples held out of training.
        size_bytes: of the file.
        p50_ms: on this machine, the median over the rounds.
        ratio: its time over that of the file before the rewrite, of the same round, the median.
    """

    value: float
    size_bytes: int
    p50_ms: float
    ratio: float


@dataclass(frozen=True)
class Effect:
    """What a rewrite did to the int8 file, all else being equal.

    Attributes:
        metric: the task's.
        samples: how many it was measured on.
        reference: the float model's.
        before: the file of the model as it was.
        after: the file of the rewritten one.
    """

    metric: Metric
    samples: int
    reference: float
    before: Int8File
    after: Int8File

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "metric": self.metric.name,
            "samples": self.samples,
            "float32": self.reference,
            "before": asdict(self.before),
            "after": asdict(self.after),
        }


def measure_effect(
    file: Path,
    rewritten: keras.Model,
    recipe: Recipe,
    device: DeviceProfile | None = None,
    *,
    progress: Progress,
) -> Effect:
    """Quantize a model before and after a rewrite with the same images, and score and time both.

    Args:
        file: the model before, trained by the recipe.
        rewritten: of `fix_model`.
        recipe: names the task, the calibration images and what was held out of training.
        device: says whether each channel of the weights gets a scale; times are this machine's.
        progress: where to report.

    Raises:
        EdgeheadsError: the recipe is of another model, or holds no samples back.
    """
    task = get_task(recipe.task, recipe.head.options)
    set_up_backend(recipe.seed)
    data = read_training_data(recipe, task, progress)
    edge = load(file, recipe, task, data.names)
    models = {"before": edge, "after": edge.with_model(rewritten, task)}
    held_out = held_out_samples(recipe, task, data.samples, _HELD_OUT)
    images = edge.inputs_of(data.samples[: recipe.export.calibration_samples])

    def int8_file(model: EdgeModel) -> bytes:
        return convert_to_tflite(
            model.model.inputs[0],
            model.outputs,
            "int8",
            images,
            calibration=recipe.export.calibration,
            per_channel=(device or DeviceProfile()).quantization.per_channel,
        )

    with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder, DeviceSession() as session:
        paths, values = {}, {}
        scorer = HeldOut(edge, task, held_out, session)
        with progress.step("Scoring both int8 files", len(models)) as step:
            for name, model in models.items():
                content = int8_file(model)
                paths[name] = Path(folder, f"{name}.tflite")
                paths[name].write_bytes(content)
                values[name] = scorer.value_of(content)
                step.advance(note=name)
        with progress.step("Timing both, in turn"):
            times = compare(session, paths, IN_TURN, _ROUNDS)
        before, after = (
            Int8File(
                values[name],
                paths[name].stat().st_size,
                times[name]["latency_ms"]["p50"],
                times[name]["ratio_to_first"],
            )
            for name in models
        )
    return Effect(scorer.metric, len(held_out), scorer.reference, before, after)
