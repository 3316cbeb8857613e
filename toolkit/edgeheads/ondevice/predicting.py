"""Running a model on given inputs."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeheads.ondevice.failure import MeasureError
from edgeheads.ondevice.files import check_model_file, file_facts, read_arrays, write_arrays
from edgeheads.ondevice.graph import graph_nodes, setup_facts, tensor_facts
from edgeheads.ondevice.interpreter import LoadedModel, Runtime, load_model, require_fixed_shapes
from edgeheads.ondevice.timing import invoke_ms

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["predict"]


def predict(request: Mapping[str, Any], runtime: Runtime) -> dict[str, Any]:
    """Run every sample of the "inputs" .npz, and write the "outputs" .npz.

    One sample is a tensor of the model without its leading axis of 1. An array of N samples is
    therefore [N, ...] for a tensor of [1, ...].
    """
    check_model_file(request["model"])
    model = load_model(request, runtime)
    require_fixed_shapes(model)
    try:
        arrays = read_arrays(request["inputs"])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MeasureError(
            "bad-input", f"expected an .npz without pickled objects, received one with: {error}"
        ) from None
    samples = _check_inputs(model, arrays)
    started = time.perf_counter()
    outputs, times_ms = _predict_all(model, arrays, samples)
    seconds = time.perf_counter() - started
    write_arrays(request["outputs"], outputs)
    return {
        **file_facts(request["model"]),
        **setup_facts(request, *graph_nodes(model.interpreter)),
        "samples": samples,
        "seconds": seconds,
        "invoke_ms": times_ms,
        "outputs": [tensor_facts(*item) for item in model.outputs.items()],
    }


def _check_inputs(model: LoadedModel, arrays: Mapping[str, NDArray[Any]]) -> int:
    """Return the number of samples, after making sure that every array fits the model."""
    if set(arrays) != set(model.inputs):
        raise MeasureError(
            "bad-input", f"expected the inputs {sorted(model.inputs)}, received {sorted(arrays)}"
        )
    for name, details in model.inputs.items():
        dtype, array = np.dtype(details["dtype"]), arrays[name]
        shape = _sample_shape(details["shape"])
        if array.dtype != dtype or array.shape[1:] != shape or array.ndim == 0:
            raise MeasureError(
                "bad-input",
                f"input {name!r}: expected {dtype.name} [N{''.join(f', {n}' for n in shape)}], "
                f"received {array.dtype.name} {list(array.shape)}; resize and quantize it first",
            )
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or min(counts.values()) == 0:
        raise MeasureError(
            "bad-input",
            f"expected the same number of samples in every input and at least 1, received {counts}",
        )
    return min(counts.values())


def _sample_shape(shape: Iterable[int]) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in shape)
    return sizes[1:] if sizes[:1] == (1,) else sizes


def _predict_all(
    model: LoadedModel, arrays: Mapping[str, NDArray[Any]], samples: int
) -> tuple[dict[str, NDArray[Any]], list[float]]:
    interpreter = model.interpreter
    collected: dict[str, list[NDArray[Any]]] = {name: [] for name in model.outputs}
    times_ms = []
    for sample in range(samples):
        for name, details in model.inputs.items():
            value = arrays[name][sample].reshape(details["shape"])
            interpreter.set_tensor(details["index"], value)
        times_ms.append(invoke_ms(interpreter))
        for name, details in model.outputs.items():
            value = interpreter.get_tensor(details["index"])
            collected[name].append(value.reshape(_sample_shape(value.shape)))
    outputs = {}
    for name, values in collected.items():
        shapes = {value.shape for value in values}
        if len(shapes) > 1:
            raise MeasureError(
                "bad-model",
                f"expected output {name!r} to keep its shape, received {sorted(shapes)}",
            )
        outputs[name] = np.stack(values)
    return outputs, times_ms
