"""From a Keras model on disk to a quantized .tflite file and a report of what it lost."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from edgeheads.bundle import write_atomically
from edgeheads.compression.legacy import load_any
from edgeheads.compression.prune.run import quiet_tensorflow
from edgeheads.compression.quantize.calibration import DEFAULT_CALIBRATION, Images, get_calibration
from edgeheads.compression.quantize.doctor import DoctorReport, diagnose
from edgeheads.compression.quantize.float_twin import in_float32
from edgeheads.compression.quantize.inputs import (
    CalibrationInputs,
    inputs_of_samples,
    read_inputs,
)
from edgeheads.compression.quantize.schemes import get_scheme
from edgeheads.compression.sensitivity.errors import output_sqnr
from edgeheads.compression.sensitivity.held_out import HeldOut, held_out_samples
from edgeheads.data.sample import Sample
from edgeheads.edge_model import EdgeModel, load
from edgeheads.errors import EdgeheadsError
from edgeheads.export.tflite import (
    convert_plainly,
    convert_to_float_tflite,
    convert_to_tflite,
)
from edgeheads.nativelog import captured_native_log
from edgeheads.progress import Progress, SilentProgress
from edgeheads.recipe import Recipe
from edgeheads.runtime import DeviceSession
from edgeheads.tasks import get_task
from edgeheads.tasks.base import Array, Metric, Task
from edgeheads.train import read_training_data, set_up_backend

__all__ = [
    "COMPARED",
    "FileReport",
    "QuantizeOptions",
    "QuantizeResult",
    "quantize_file",
    "write_file",
]

# SQNR needs no more; each is run through both files.
COMPARED = 32


@dataclass(frozen=True)
class QuantizeOptions:
    """How a file is made.

    Attributes:
        scheme: a name from SCHEMES.
        calibration: a name from CALIBRATIONS.
        per_channel: give each channel of the weights a scale of its own.
        samples: calibration inputs at most.
        scaling: how pictures become inputs, see `read_inputs`.
        compare: make the file of the converter alone, too, and report both.
        only_diagnose: look at the calibration set, and make no file.
    """

    scheme: str = "int8"
    calibration: str = DEFAULT_CALIBRATION
    per_channel: bool = True
    samples: int = 128
    scaling: str | None = None
    compare: bool = False
    only_diagnose: bool = False

    def __post_init__(self) -> None:
        scheme = get_scheme(self.scheme)
        get_calibration(self.calibration)
        if not self.per_channel and not scheme.calibrated:
            raise EdgeheadsError(
                f"one scale for all channels is for schemes of integers, received {self.scheme}; "
                "leave --per-tensor out"
            )


@dataclass(frozen=True)
class FileReport:
    """What is known of a file.

    Attributes:
        size_bytes: of it.
        sqnr_db: of its worst output, against the float32 file; infinite where nothing is lost;
            None: no images to measure with.
        drop: by how much the task's metric is worse than the Keras model's; None: not scored.
    """

    size_bytes: int
    sqnr_db: float | None = None
    drop: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values; an infinite ratio is None."""
        ratio = self.sqnr_db
        lost = ratio is not None and abs(ratio) != float("inf")
        return {
            "size_bytes": self.size_bytes,
            "sqnr_db": ratio if lost else None,
            "metric_drop": self.drop,
        }


@dataclass(frozen=True)
class QuantizeResult:
    """What was made, and what is known of it.

    Attributes:
        path: the .tflite file; None: only the calibration set was looked at.
        doctor: of the calibration set; None: there is none, as the scheme needs none.
        files: {"float32", scheme, and perhaps "plain converter": what is known of it}.
        compared: images of the SQNR.
        held_out: samples of the metric.
        metric: of the drops; None: not scored.
        reference: the Keras model's metric.
    """

    path: Path | None
    doctor: DoctorReport | None
    files: dict[str, FileReport]
    compared: int = 0
    held_out: int = 0
    metric: Metric | None = None
    reference: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "path": self.path and str(self.path),
            "doctor": self.doctor and self.doctor.as_json(),
            "files": {name: one.as_json() for name, one in self.files.items()},
            "sqnr_images": self.compared,
            "metric": self.metric and self.metric.name,
            "metric_reference": self.reference,
            "metric_samples": self.held_out,
        }


def quantize_file(
    model_file: Path,
    out: Path,
    options: QuantizeOptions,
    *,
    data: Path | None = None,
    recipe: Recipe | None = None,
    with_metric: bool = False,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Look at the calibration set, make a .tflite file, and report what it lost.

    Args:
        model_file: a `.keras` or `.h5` file, see `load_any`, or a float32 `.tflite` file, see
            `quantize_flat_file`; it is not changed.
        out: the file to write, whole or not at all.
        options: how.
        data: calibration inputs, see `read_inputs`; schemes without calibration can do without,
            and are then not compared. Not with a recipe, which names its own.
        recipe: the model's: what it was trained on is calibrated with.
        with_metric: score the files on samples held out of training; with a recipe only.
        progress: where to report.

    Raises:
        EdgeheadsError: a model, data or recipe that cannot be used; a calibration set that the
            doctor finds errors in.
        RuntimeFailureError: the converter or the quantizer refuses the graph.
    """
    progress = progress or SilentProgress()
    if out.resolve() == model_file.resolve():
        raise EdgeheadsError(f"--out {out} would replace the model; choose another file")
    quiet_tensorflow()
    if model_file.suffix == ".tflite":
        from edgeheads.compression.quantize.flat_file import quantize_flat_file

        if recipe is not None:
            raise EdgeheadsError(
                f"a recipe belongs to a Keras model, received {model_file}; leave it out, and give "
                "images with --data"
            )
        return quantize_flat_file(model_file, out, options, data=data, progress=progress)
    set_up_backend(0 if recipe is None else recipe.seed)
    with captured_native_log():
        if recipe is None:
            prepared = _Prepared.of_file(model_file, data, options)
        else:
            prepared = _Prepared.of_recipe(model_file, recipe, options, with_metric, progress)
    inputs, graph = prepared.inputs, prepared.graph
    if inputs is None and (get_scheme(options.scheme).calibrated or options.only_diagnose):
        raise EdgeheadsError(
            f"{options.scheme} is calibrated with images like those the model will see: give them "
            "with --data DIR, or name the model's recipe with --recipe"
        )
    with progress.step("Converting to float32"):
        float_model = convert_to_float_tflite(*graph)
    doctor = None
    if inputs is not None:
        with progress.step("Looking at the calibration images"), captured_native_log():
            doctor = _examine(prepared.model, float_model, inputs, options)
        if options.only_diagnose:
            return QuantizeResult(None, doctor, {})
        doctor.require_usable()
    images = None if inputs is None else inputs.images
    files = {"float32": float_model}
    with progress.step(f"Converting to {options.scheme}"):
        content = convert_to_tflite(
            *graph,
            options.scheme,
            images,
            calibration=options.calibration,
            per_channel=options.per_channel,
        )
        if options.compare and images is not None:
            files["plain converter"] = convert_plainly(*graph, images)
        files[options.scheme] = content
    with captured_native_log():
        reports, scorer = _compare(files, prepared, progress)
    write_file(out, content)
    return QuantizeResult(
        out,
        doctor,
        reports,
        min(COMPARED, inputs.count) if inputs else 0,
        len(prepared.held_out),
        None if scorer is None else scorer.metric,
        None if scorer is None else scorer.reference,
    )


def write_file(out: Path, content: bytes) -> None:
    """Write a file, whole or not at all, and the folder it lies in.

    Raises:
        EdgeheadsError: it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, content)
    except OSError as error:
        raise EdgeheadsError(
            f"cannot write {out} ({error.strerror or error}); choose another file with --out"
        ) from None


@dataclass(frozen=True)
class _Prepared:
    """A model, what of it becomes the file, and what is known of its inputs."""

    model: keras.Model
    graph: tuple[Any, Mapping[str, Any]]
    inputs: CalibrationInputs | None
    edge: EdgeModel | None = None
    task: Task | None = None
    held_out: tuple[Sample, ...] = ()

    @classmethod
    def of_file(cls, path: Path, data: Path | None, options: QuantizeOptions) -> _Prepared:
        model = _load(path)
        shapes = [tuple(one.shape) for one in getattr(model, "inputs", None) or ()]
        if len(shapes) != 1 or len(shapes[0]) != 4 or None in shapes[0][1:]:
            raise EdgeheadsError(
                f"model {path} must be functional and take one image of a fixed size "
                f"[N, H, W, C], received inputs {shapes}"
            )
        if isinstance(model, keras.Sequential):
            model = keras.Model(model.inputs, model.outputs, name=model.name)
        model = in_float32(model)
        outputs = dict(zip(_output_names(model), model.outputs, strict=True))
        inputs = None
        if data is not None:
            inputs = read_inputs(model, data, scaling=options.scaling, most=options.samples)
        return cls(model, (model.inputs[0], outputs), inputs)

    @classmethod
    def of_recipe(
        cls,
        path: Path,
        recipe: Recipe,
        options: QuantizeOptions,
        with_metric: bool,
        progress: Progress,
    ) -> _Prepared:
        task = get_task(recipe.task, recipe.head.options)
        data = read_training_data(recipe, task, progress)
        edge = load(path, recipe, task, data.names)
        chosen = data.samples[: options.samples]
        inputs = inputs_of_samples(edge.scaling, chosen, data.names)
        held_out = held_out_samples(recipe, task, data.samples, len(chosen)) if with_metric else []
        graph = edge.model.inputs[0], edge.outputs
        return cls(edge.model, graph, inputs, edge, task, tuple(held_out))


def _load(path: Path) -> keras.Model:
    try:
        return load_any(path)
    except EdgeheadsError as error:
        foreign = _foreign_layers(path)
        if not foreign:
            raise
        raise EdgeheadsError(
            f"model {path} has layers of its own, {', '.join(foreign)}, which are not in Keras; "
            "build it of stock layers, or import and register them and call quantize_file"
        ) from error


def _foreign_layers(path: Path) -> list[str]:
    """Return the classes of a `.keras` file that are not of Keras; none of a file of other kind."""
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return []
    found: set[str] = set()
    waiting = [config]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
            if "class_name" in one and "module" in one:
                package = str(one["module"]).partition(".")[0]
                found |= set() if package in ("keras", "builtins") else {str(one["class_name"])}
        elif isinstance(one, list):
            waiting += one
    return sorted(found)


def _output_names(model: keras.Model) -> list[str]:
    """Return a name for each output: its layer's, or a number where two share one."""
    names = list(model.output_names)
    if len(set(names)) == len(model.outputs):
        return names
    return [f"output_{index}" for index in range(len(model.outputs))]


def _examine(
    model: keras.Model, float_model: bytes, inputs: CalibrationInputs, options: QuantizeOptions
) -> DoctorReport:
    return diagnose(
        inputs.images,
        (1, *model.inputs[0].shape[1:]),
        expected=inputs.expected,
        labels=inputs.labels,
        classes=inputs.classes,
        float_model=float_model,
        keras_model=model,
        method=options.calibration,
    )


def _compare(
    files: Mapping[str, bytes], prepared: _Prepared, progress: Progress
) -> tuple[dict[str, FileReport], HeldOut | None]:
    """Return what is known of each file; the first is what the others are compared with."""
    images = None if prepared.inputs is None else _first(prepared.inputs.images)
    reports = {}
    exact = next(iter(files.values()))
    with DeviceSession() as session, progress.step("Comparing outputs", len(files)) as step:
        scorer = None
        if prepared.held_out and prepared.edge is not None and prepared.task is not None:
            scorer = HeldOut(prepared.edge, prepared.task, prepared.held_out, session)
        for name, content in files.items():
            reports[name] = FileReport(
                len(content),
                None if images is None else output_sqnr(exact, content, images),
                None if scorer is None else scorer.drop_of(content),
            )
            step.advance()
    return reports, scorer


def _first(images: Images) -> Images:
    def some() -> Iterator[Array]:
        for _, image in zip(range(COMPARED), images(), strict=False):
            yield image

    return some
