"""What pruning cost in the task's metric, and what it bought in operations, bytes and time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras

from edgeheads.bench.latency import compare
from edgeheads.compression.macs import count_macs, count_parameters
from edgeheads.compression.prune.meter import Exporter
from edgeheads.compression.prune.sparsity import FileSize, file_size, layer_sparsity
from edgeheads.compression.prune.target import parse_target
from edgeheads.errors import EdgeheadsError
from edgeheads.runtime import BenchSettings, DeviceSession

__all__ = ["GAIN", "PruneReport", "Stage", "measure_files"]

# A file that is not at least so much faster, as a share of the original's p50, bought nothing.
GAIN = 0.97


@dataclass
class Stage:
    """A model on its way.

    Attributes:
        title: "original", "round 1, pruned", "round 1, recovered".
        macs: multiply-accumulates of one image.
        parameters: counted.
        sparsity: share of zeros in the kernels of convolutions and dense layers.
        metrics: of the Keras model on the test data; empty without any.
        files: {precision: size of the .tflite file}; of stages that are timed.
        p50_ms: {precision: median latency}.
        ratio: {precision: p50 divided by the original's, timed in turn}.
    """

    title: str
    macs: int
    parameters: int
    sparsity: float
    metrics: dict[str, float] = field(default_factory=dict)
    files: dict[str, FileSize] = field(default_factory=dict)
    p50_ms: dict[str, float] = field(default_factory=dict)
    ratio: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, title: str, model: keras.Model, metrics: dict[str, float] | None = None) -> Stage:
        """Count a model."""
        kernels = layer_sparsity(model)
        weights = sum(one.weights for one in kernels)
        zeros = sum(one.zeros for one in kernels) / weights if weights else 0.0
        return cls(title, count_macs(model), count_parameters(model), zeros, metrics or {})


@dataclass
class PruneReport:
    """A whole pruning.

    Attributes:
        target: as it was asked for; None where only zeros were.
        stages: the original first, the result last.
        widths: {layer: (channels before, after)}.
        protected: {layer: why the channels around it stayed}.
        device: on which was timed; empty where nothing was.
        runtime: "name version" of the interpreter there.
        unstable: precisions whose p50 varied much between rounds.
        precision: of the file that a target in size or latency is of.
        refused: {precision: why there is no file of it}.
    """

    target: str | None
    stages: list[Stage] = field(default_factory=list)
    widths: dict[str, tuple[int, int]] = field(default_factory=dict)
    protected: dict[str, str] = field(default_factory=dict)
    device: str = ""
    runtime: str = ""
    unstable: list[str] = field(default_factory=list)
    precision: str = "float32"
    refused: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def bought_nothing(self) -> list[str]:
        """Return the precisions in which the result is not faster than the original."""
        return [name for name, ratio in self.stages[-1].ratio.items() if ratio > GAIN]

    def missed(self) -> float | None:
        """Return the share of the original's, where the last measurement is above the target.

        A latency that met the target while channels were chosen may not do so at the end.
        """
        if self.target is None:
            return None
        target = parse_target(self.target)
        before, after = (self._value(stage, target.kind) for stage in self._ends())
        if before is None or after is None or after <= target.limit(before):
            return None
        return after / before

    def _ends(self) -> tuple[Stage, Stage]:
        return self.stages[0], self.stages[-1]

    def _value(self, stage: Stage, kind: str) -> float | None:
        if kind == "macs":
            return stage.macs
        if kind == "parameters":
            return stage.parameters
        if kind == "size":
            size = stage.files.get(self.precision)
            return None if size is None else size.raw
        ratio = stage.ratio.get(self.precision)
        return None if ratio is None else ratio * self.stages[0].p50_ms[self.precision]


def measure_files(
    report: PruneReport,
    models: Sequence[tuple[Stage, keras.Model]],
    precisions: Sequence[str],
    exporter: Exporter,
    session: DeviceSession,
    settings: BenchSettings | None = None,
) -> None:
    """Convert models, and time their files in turn: into the stages and the report.

    A model of which no file can be made is measured no further: it was pruned all the same.

    Args:
        report: gets the device's name, what was unstable, and what was refused.
        models: the original first.
        precisions: of the files.
        exporter: makes them.
        session: the device.
        settings: of the measurement.
    """
    with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder:
        for precision in precisions:
            try:
                contents = [exporter(model, precision) for _, model in models]
            except EdgeheadsError as error:
                report.refused[precision] = str(error)
                continue
            paths = {}
            for index, ((stage, _), content) in enumerate(zip(models, contents, strict=True)):
                stage.files[precision] = file_size(content)
                paths[str(index)] = Path(folder, f"{precision}-{index}.tflite")
                paths[str(index)].write_bytes(content)
            results = compare(session, paths, settings)
            for (stage, _), result in zip(models, results.values(), strict=True):
                stage.p50_ms[precision] = result["latency_ms"]["p50"]
                stage.ratio[precision] = result["ratio_to_first"]
            if any(result["unstable"] for result in results.values()):
                report.unstable.append(precision)
            runtime = next(iter(results.values()))["repeats"][0]["runtime"]
            report.device = session.profile.name
            report.runtime = f"{runtime['name']} {runtime['version']}"
