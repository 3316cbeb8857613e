"""What each task's efficient head costs on a backbone: parameters, operations, milliseconds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edgeheads.backbones import create_backbone
from edgeheads.bench.latency import compare
from edgeheads.compression.macs import count_macs
from edgeheads.compression.quantize.calibration import Images
from edgeheads.export.tflite import convert_to_tflite
from edgeheads.heads import HEADS
from edgeheads.heads.base import BaseVisionHead
from edgeheads.heads.configuration import HeadConfiguration
from edgeheads.heads.factory import create_vision_head
from edgeheads.model import build_model
from edgeheads.progress import Progress, SilentProgress
from edgeheads.runtime import BenchSettings, DeviceSession
from edgeheads.tasks.base import Array

__all__ = ["HeadCost", "calibration_images", "edge_tensors", "measure_heads", "settle"]

_CALIBRATION_IMAGES = 4
_SETTLING_IMAGES = 4


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
    """Convert every efficient head to int8 on one backbone, and time them in turn.

    The weights are random: they change neither the operations nor the time.

    Args:
        backbone_name: a key of `BACKBONES`.
        size: (height, width) of the input in pixels.
        session: the device.
        width: of the backbone.
        levels: what the heads see; None for all.
        settings: of the measurement.
        repeats: rounds.
        progress: where to report.

    Returns:
        The backbone alone, then one row a task.
    """
    progress = progress or SilentProgress()
    models = {"backbone alone": _backbone(backbone_name, size, width, levels)}
    outputs: dict[str, dict[str, Any]] = {"backbone alone": models["backbone alone"].output}
    for task in HEADS:
        head = create_vision_head(
            task,
            **{
                "name": task.value.replace("-", "_"),
                **HeadConfiguration.get_efficient_config(task),
            },
        )
        model = settle(build_model(_backbone(backbone_name, size, width, levels), task))
        models[task.value] = model
        outputs[task.value] = edge_tensors(model, head)
    with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder:
        files = {}
        with progress.step("Converting heads to int8", len(models)) as step:
            for name, model in models.items():
                files[name] = Path(folder, f"{name}.tflite")
                files[name].write_bytes(_int8(model, outputs[name]))
                step.advance(note=name)
        with progress.step(f"Timing, {repeats} rounds"):
            results = compare(session, files, settings, repeats)
        facts = {name: session.inspect(path) for name, path in files.items()}
    base = models["backbone alone"]
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


def edge_tensors(model: keras.Model, head: BaseVisionHead) -> dict[str, Any]:
    """Return {edge output: symbolic tensor} of a flat graph that `head`'s like was laid into."""
    return {part: model.get_layer(layer).output for part, layer in head.edge_outputs().items()}


def _backbone(
    name: str, size: tuple[int, int], width: float, levels: Sequence[str] | None
) -> keras.Model:
    return create_backbone(name, (*size, 3), width=width, levels=levels)


def settle(model: keras.Model) -> keras.Model:
    """Give batch normalization the statistics of noise: activations then spread as trained ones do.

    With those of a new layer they vanish over the depth, and an addition of tensors whose scales
    differ by a factor of thousands is one that no delegate takes.
    """
    layers = [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    shape = (_SETTLING_IMAGES, *model.inputs[0].shape[1:])
    model(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32), training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return model


def calibration_images(shape: tuple[int, int, int]) -> Images:
    """Return a few images of noise: ranges change no time."""

    def images() -> Iterator[Array]:
        for seed in range(_CALIBRATION_IMAGES):
            yield np.random.default_rng(seed).uniform(-1, 1, (1, *shape)).astype(np.float32)

    return images


def _int8(model: keras.Model, outputs: Mapping[str, Any]) -> bytes:
    image = model.inputs[0]
    return convert_to_tflite(image, outputs, "int8", calibration_images(tuple(image.shape[1:])))
