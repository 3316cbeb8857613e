"""Timing a model: its start, its first run, and then many runs."""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeheads.contract import ImageInput, TensorSpec
from edgeheads.ondevice.failure import MeasureError, bad_request
from edgeheads.ondevice.files import check_model_file, file_facts
from edgeheads.ondevice.graph import graph_nodes, setup_facts
from edgeheads.ondevice.interpreter import LoadedModel, Runtime, load_model, require_fixed_shapes
from edgeheads.ondevice.machine import (
    Sampler,
    conditions,
    peak_memory_bytes,
    proc_status_bytes,
    since_process_start_ms,
    utc_now,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["bench", "fill_inputs", "invoke_ms", "repeat", "summarize"]

# Preprocessing is timed for this many pictures, or this long.
_PREPARE_RUNS = 100
_PREPARE_SECONDS = 2.0


def bench(request: Mapping[str, Any], runtime: Runtime) -> dict[str, Any]:
    """Time the interpreter's invoke call on random inputs, one sample at a time."""
    check_model_file(request["model"])
    started_at = utc_now()
    resident_bytes = proc_status_bytes("VmRSS")
    model = load_model(request, runtime)
    process_to_ready_ms = since_process_start_ms()
    conditions_before = conditions()
    require_fixed_shapes(model)
    fill_inputs(model, request)
    first_ms = invoke_ms(model.interpreter)
    warmup = repeat(
        model.interpreter,
        request["warmup_runs"],
        request["max_seconds"],
        min_seconds=request["min_warmup_seconds"],
    )
    sampler = Sampler(request["sample_seconds"])
    started = time.perf_counter()
    series = repeat(
        model.interpreter,
        request["runs"],
        request["max_seconds"],
        min_seconds=request["min_seconds"],
        between=sampler,
    )
    seconds = time.perf_counter() - started
    peak_bytes = peak_memory_bytes()
    conditions_after = conditions()
    return {
        **file_facts(request["model"]),
        **setup_facts(request, *graph_nodes(model.interpreter)),
        "latency_ms": summarize(series),
        "series_ms": series,
        "runs": len(series),
        "runs_requested": request["runs"],
        "seconds": seconds,
        "min_seconds": request["min_seconds"],
        "max_seconds": request["max_seconds"],
        "stopped_early": len(series) < request["runs"] or seconds < request["min_seconds"],
        "warmup_runs": len(warmup),
        "warmup_runs_requested": request["warmup_runs"],
        "warmup_ms": sum(warmup),
        "import_ms": runtime.import_ms,
        "cold_start_ms": model.cold_start_ms,
        "process_to_ready_ms": process_to_ready_ms,
        "first_inference_ms": first_ms,
        "preprocess_ms": _preprocess(request["image"], request["seed"]),
        "peak_memory_bytes": peak_bytes,
        "model_memory_bytes": (
            None if peak_bytes is None or resident_bytes is None else peak_bytes - resident_bytes
        ),
        "seed": request["seed"],
        "protocol": _protocol(request, runtime),
        "conditions_before": conditions_before,
        "conditions_during": sampler.samples,
        "conditions_after": conditions_after,
        "started_at": started_at,
        "finished_at": utc_now(),
    }


def fill_inputs(model: LoadedModel, request: Mapping[str, Any]) -> None:
    """Write random values into every input, the same for the same seed."""
    rng = np.random.default_rng(request["seed"])
    for name, details in model.inputs.items():
        model.interpreter.set_tensor(details["index"], _random_input(rng, name, details, request))


def invoke_ms(interpreter: Any) -> float:
    """Run the model once, and return how long that took."""
    started = time.perf_counter_ns()
    try:
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise MeasureError(
            "run-failed",
            f"expected the model to run, received from the interpreter: {error}; "
            "try the delegate none, or another runtime",
        ) from None
    return (time.perf_counter_ns() - started) / 1e6


def repeat(
    interpreter: Any,
    runs: int,
    max_seconds: float,
    min_seconds: float = 0.0,
    between: Callable[[], None] | None = None,
) -> list[float]:
    """Invoke until both `runs` and `min_seconds` are reached, or `max_seconds` have passed.

    `between` is called before every run, outside of its time.
    """
    series: list[float] = []
    started = time.perf_counter()
    gc.disable()  # a collection in the middle of a run would be counted as the model's time
    try:
        while True:
            elapsed = time.perf_counter() - started
            enough = len(series) >= runs and elapsed >= min_seconds
            if enough or (series and elapsed >= max_seconds):
                return series
            if between is not None:
                between()
            series.append(invoke_ms(interpreter))
    finally:
        gc.enable()


def summarize(series: Iterable[float]) -> dict[str, float]:
    """Return p50, p90, p95, p99, mean, std, min and max of a series, in the series' unit.

    Percentiles interpolate linearly between neighbours; std is that of the series itself, not
    an estimate for a larger population.
    """
    values = np.asarray(list(series), np.float64)
    p50, p90, p95, p99 = (float(value) for value in np.percentile(values, [50, 90, 95, 99]))
    return {
        "p50": p50,
        "p90": p90,
        "p95": p95,
        "p99": p99,
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
    }


def _preprocess(image: Mapping[str, Any], seed: int) -> dict[str, Any] | None:
    """Time what turns a picture of the model's size into its input tensor, by the contract."""
    if not image:
        return None
    try:
        tensor = TensorSpec(**{**image["tensor"], "shape": tuple(image["tensor"]["shape"])})
        contract = ImageInput(tensor, tuple(image["scale"]), tuple(image["offset"]))
        height, width = contract.size
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise bad_request("image as a contract's image input", repr(error)) from None
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (height, width, 3), np.uint8)
    series: list[float] = []
    begin = time.perf_counter()
    while len(series) <= _PREPARE_RUNS and time.perf_counter() - begin < _PREPARE_SECONDS:
        started = time.perf_counter_ns()
        contract.prepare(picture)
        series.append((time.perf_counter_ns() - started) / 1e6)
    # The first one fills caches, as the model's warm-up does.
    counted = series[1:] or series
    return {"latency_ms": summarize(counted), "runs": len(counted)}


def _random_input(
    rng: np.random.Generator, name: str, details: Mapping[str, Any], request: Mapping[str, Any]
) -> NDArray[Any]:
    """Return values like those of a real input, for models whose time depends on them."""
    dtype, shape = np.dtype(details["dtype"]), details["shape"]
    values: NDArray[Any]
    if dtype.kind == "f":
        values = rng.uniform(request["input_low"], request["input_high"], shape)
    elif dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize > 2):
        # Wide integers are mostly indices, and an index out of range stops the run.
        values = rng.integers(0, 2, shape)
    elif dtype.kind in "iu":
        values = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, endpoint=True)
    else:
        raise MeasureError("bad-model", f"expected numeric inputs, input {name!r} is {dtype.name}")
    return values.astype(dtype)


def _protocol(request: Mapping[str, Any], runtime: Runtime) -> str:
    return (
        f"{runtime.name} {runtime.version} from Python {platform.python_version()} in a process "
        f"of its own, {request['threads']} thread(s), delegate {request['delegate']}, batch 1. "
        f"Inputs are random (seed {request['seed']}), written once before the first run: floats "
        f"uniform in [{request['input_low']}, {request['input_high']}), 8- and 16-bit integers "
        "uniform over their type, wider ones 0 or 1. Timed is the invoke call alone, wall clock, "
        "garbage collection off. First one run, then warm-up, neither counted. Counted are at "
        f"least {request['runs']} runs and {request['min_seconds']:g} s; both warm-up and "
        f"measurement end early after {request['max_seconds']:g} s. Percentiles interpolate "
        "linearly. cold_start_ms is creating the interpreter from a "
        "file in the system's cache and allocating its tensors; "
        "import_ms is importing it; process_to_ready_ms is from the start of the process, Python "
        "itself included, until the tensors are allocated. Clock and heat are read between runs, "
        f"every {request['sample_seconds']:g} s. Peak memory is the process' peak resident set; "
        "the model's part is that minus the resident set just before loading."
    )
