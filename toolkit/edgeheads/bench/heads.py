"""What each task's efficient head costs on a backbone: parameters, operations, milliseconds."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from edgeheads.backbones import create_backbone
from edgeheads.bench.latency import compare
from edgeheads.compression.macs import count_macs
from edgeheads.compression.quantize.calibration import Range
from edgeheads.compression.quantize.quantizer import quantize_float_model
from edgeheads.compression.quantize.schemes import get_scheme
from edgeheads.export.compact import compact
from edgeheads.export.fast_int8 import Speed, speed_for
from edgeheads.export.flatgraph import FlatGraph
from edgeheads.export.tflite import convert_to_float_tflite
from edgeheads.heads import HEADS
from edgeheads.heads.base import BaseVisionHead
from edgeheads.heads.configuration import HeadConfiguration
from edgeheads.heads.factory import create_vision_head
from edgeheads.model import build_model
from edgeheads.progress import Progress, SilentProgress
from edgeheads.runtime import BenchSettings, DeviceSession
from edgeheads.tasks.task_type import TaskType

__all__ = ["HeadCost", "edge_tensors", "int8_for_timing", "measure_heads", "seen_levels"]


# A detector begins at stride 8 (Lin et al. 2017, "Focal Loss"): at 4 it has four times the anchors.
_BEGIN_AT_P3 = (TaskType.DETECTION, TaskType.INSTANCE_SEGMENTATION)


@dataclass(frozen=True)
class HeadCost:
    """What one head costs, the backbone below it included where it says so.

    Attributes:
        name: the task, or "backbone alone".
        parameters: of the head.
        macs: multiply-accumulates of the head for one image.
        size_bytes: of the int8 file, backbone included.
        p50_ms: of the int8 file, backbone included; the median over the rounds.
        ratio_to_backbone: p50 of the file divided by that of the backbone alone, round by round.
        delegated_nodes: of the int8 file.
        nodes: likewise.
        integer_nodes: likewise.
    """

    name: str
    parameters: int
    macs: int
    size_bytes: int
    p50_ms: float
    ratio_to_backbone: float
    delegated_nodes: int
    nodes: int
    integer_nodes: int


def measure_heads(
    backbone_name: str,
    size: tuple[int, int],
    session: DeviceSession,
    *,
    width: float = 1.0,
    levels: Sequence[str] | None = ("P2", "P3", "P4", "P5"),
    settings: BenchSettings | None = None,
    repeats: int = 5,
    progress: Progress | None = None,
) -> list[HeadCost]:
    """Convert every efficient head to int8, fast for the device, and time them in turn.

    The weights are random: they change neither the operations nor the time.

    Args:
        backbone_name: a key of `BACKBONES`.
        size: (height, width) of the input in pixels.
        session: the device.
        width: of the backbone.
        levels: what the heads see; None for all. Detectors begin at P3.
        settings: of the measurement.
        repeats: rounds.
        progress: where to report.

    Returns:
        The backbone alone, then one row a task.
    """
    progress = progress or SilentProgress()
    speed = speed_for(session.profile)
    base = _backbone(backbone_name, size, width, levels)
    models, outputs = {"backbone alone": base}, {"backbone alone": base.output}
    for task in HEADS:
        below = _backbone(backbone_name, size, width, seen_levels(task, levels))
        models[task.value], outputs[task.value] = _with_efficient_head(below, task)
    with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder:
        files = {}
        with progress.step("Converting heads to int8", len(models)) as step:
            for name, model in models.items():
                files[name] = Path(folder, f"{name}.tflite")
                content = convert_to_float_tflite(model.inputs[0], outputs[name])
                files[name].write_bytes(int8_for_timing(content, speed))
                step.advance(note=name)
        with progress.step(f"Timing, {repeats} rounds"):
            results = compare(session, files, settings, repeats)
        facts = {name: session.inspect(path) for name, path in files.items()}
    return [
        HeadCost(
            name=name,
            parameters=model.count_params() - (base.count_params() if model is not base else 0),
            macs=count_macs(model) - (count_macs(base) if model is not base else 0),
            size_bytes=facts[name]["size_bytes"],
            p50_ms=results[name]["latency_ms"]["p50"],
            ratio_to_backbone=results[name]["ratio_to_first"],
            delegated_nodes=facts[name]["delegated_nodes"],
            nodes=facts[name]["nodes"],
            integer_nodes=facts[name]["integer_nodes"],
        )
        for name, model in models.items()
    ]


def seen_levels(task: TaskType, levels: Sequence[str] | None) -> Sequence[str] | None:
    """Return those of the backbone's levels that a task's head reads."""
    if levels is None or task not in _BEGIN_AT_P3:
        return levels
    return [level for level in levels if level >= "P3"] or levels


def edge_tensors(model: keras.Model, head: BaseVisionHead) -> dict[str, Any]:
    """Return {edge output: symbolic tensor} of a flat graph that `head`'s like was laid into."""
    return {part: model.get_layer(layer).output for part, layer in head.edge_outputs().items()}


def _with_efficient_head(
    backbone: keras.Model, task: TaskType
) -> tuple[keras.Model, dict[str, Any]]:
    """Return the model, and its {edge output: symbolic tensor}."""
    options = HeadConfiguration.get_efficient_config(task)
    head = create_vision_head(task, **{"name": task.value.replace("-", "_"), **options})
    model = build_model(backbone, task)
    return model, edge_tensors(model, head)


def _backbone(
    name: str, size: tuple[int, int], width: float, levels: Sequence[str] | None
) -> keras.Model:
    return create_backbone(name, (*size, 3), width=width, levels=levels)


def int8_for_timing(float_model: bytes, speed: Speed) -> bytes:
    """Quantize a float file with one made-up range for all: time does not depend on which.

    Ranges that are measured with random weights vanish over the depth, and an addition of tensors
    whose scales differ by a factor of thousands is one that no delegate takes.
    """
    changed, kept = speed.changed(float_model)
    ranges = dict.fromkeys(FlatGraph(changed).activations(), Range(-4.0, 4.0))
    return compact(quantize_float_model(changed, ranges, get_scheme("int8"), keep_float=kept))
