"""From a float32 .tflite file, whoever made it, to a quantized one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edgeheads.compression.quantize.calibration import Images
from edgeheads.compression.quantize.doctor import diagnose
from edgeheads.compression.quantize.inputs import read_inputs
from edgeheads.compression.quantize.quantizer import quantize_with_images
from edgeheads.compression.quantize.run import (
    COMPARED,
    FileReport,
    QuantizeOptions,
    QuantizeResult,
    write_file,
)
from edgeheads.compression.quantize.schemes import SCHEMES, get_scheme
from edgeheads.compression.sensitivity.errors import output_sqnr
from edgeheads.errors import EdgeheadsError
from edgeheads.export.compact import compact
from edgeheads.export.flatgraph import FlatGraph
from edgeheads.nativelog import captured_native_log
from edgeheads.progress import Progress, SilentProgress
from edgeheads.tasks.base import Array

__all__ = ["quantize_flat_file"]


def quantize_flat_file(
    model_file: Path,
    out: Path,
    options: QuantizeOptions,
    *,
    data: Path | None,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Look at the calibration set, quantize a float32 .tflite file, and report what it lost.

    Args:
        model_file: with one image input [1, H, W, C]; it is not changed.
        out: the file to write, whole or not at all.
        options: how; the scheme must be one that is calibrated.
        data: calibration inputs, see `read_inputs`.
        progress: where to report.

    Raises:
        EdgeheadsError: a file, data or options that cannot be used; a calibration set that the
            doctor finds errors in.
        RuntimeFailureError: the quantizer refuses the graph.
    """
    progress = progress or SilentProgress()
    scheme = get_scheme(options.scheme)
    if not scheme.calibrated:
        known = ", ".join(name for name, one in SCHEMES.items() if one.calibrated)
        raise EdgeheadsError(
            f"a .tflite file can become {known}, received {scheme.name}; quantize the Keras model "
            "it was made of instead"
        )
    if options.compare:
        raise EdgeheadsError("--compare makes the file anew from a Keras model; leave it out")
    if data is None:
        raise EdgeheadsError(
            f"{scheme.name} is calibrated with images like those the model will see: give them "
            "with --data DIR"
        )
    content, shape = _read(model_file)
    takes = _Takes([_Input(shape)])
    inputs = read_inputs(takes, data, scaling=options.scaling, most=options.samples)
    with progress.step("Looking at the calibration images"), captured_native_log():
        doctor = diagnose(
            inputs.images,
            shape,
            expected=inputs.expected,
            labels=inputs.labels,
            classes=inputs.classes,
            float_model=content,
            method=options.calibration,
        )
    if options.only_diagnose:
        return QuantizeResult(None, doctor, {})
    doctor.require_usable()
    with progress.step(f"Converting to {scheme.name}"):
        made = compact(
            quantize_with_images(
                content,
                scheme,
                inputs.images,
                calibration=options.calibration,
                per_channel=options.per_channel,
            )
        )
    with progress.step("Comparing outputs"), captured_native_log():
        some = _first(inputs.images)
        reports = {
            name: FileReport(len(file), output_sqnr(content, file, some))
            for name, file in (("float32", content), (scheme.name, made))
        }
    write_file(out, made)
    return QuantizeResult(out, doctor, reports, min(COMPARED, inputs.count))


@dataclass(frozen=True)
class _Input:
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Takes:
    """What `read_inputs` asks of a Keras model; no layer tells how pixels are scaled."""

    inputs: list[_Input]
    layers: tuple[()] = ()


def _read(path: Path) -> tuple[bytes, tuple[int, ...]]:
    """Return a float32 file and the shape of its input."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EdgeheadsError(f"model {path} cannot be read ({error.strerror or error})") from None
    try:
        graph = FlatGraph(content)
        inputs = [(graph.shape(one), graph.dtype(one)) for one in graph.inputs]
        integers = any(graph.dtype(one) in ("int8", "int16") for one in graph.activations())
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise EdgeheadsError(
            f"model {path} is no .tflite file with one graph ({type(error).__name__})"
        ) from None
    if len(inputs) != 1 or len(inputs[0][0]) != 4 or inputs[0][0][0] != 1:
        raise EdgeheadsError(
            f"model {path} must take one image of a fixed size [1, H, W, C], received inputs "
            f"{[shape for shape, _ in inputs]}"
        )
    shape, dtype = inputs[0]
    if dtype != "float32" or integers:
        raise EdgeheadsError(
            f"model {path} must be float32 throughout, received input {dtype}"
            f"{' and integer activations' if integers else ''}; quantize the file it was made of"
        )
    return content, shape


def _first(images: Images) -> Images:
    def some() -> Iterator[Array]:
        yield from islice(images(), COMPARED)

    return some
