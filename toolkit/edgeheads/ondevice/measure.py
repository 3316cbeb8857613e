"""Runs one .tflite file on the machine this program lies on, and writes down what it saw.

    python measure.py REQUEST.json RESULT.json

The request is an object with an "action" (describe, inspect, bench or predict) and the keys that
`_REQUEST_KEYS` lists for it. One process answers one request, so that memory and start-up times
are the model's own. The exit status is 0, or 3 when RESULT.json holds
`{"error": {"kind": ..., "message": ...}}`.

This file is copied to devices as it is. It therefore needs only the standard library, numpy and
an interpreter, keeps to Python 3.8, and imports nothing from the package it lies in.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import math
import os
import platform
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FAILURE_EXIT_CODE", "main", "read_arrays", "summarize", "write_arrays"]

FAILURE_EXIT_CODE = 3

# In the order they are tried: distribution, import package, then where in the imported module the
# interpreter and the choice of op kernels are found.
_RUNTIMES = (
    ("ai-edge-litert", "ai_edge_litert.interpreter", "Interpreter", "OpResolverType"),
    ("tflite-runtime", "tflite_runtime.interpreter", "Interpreter", "OpResolverType"),
    ("tensorflow", "tensorflow", "lite.Interpreter", "lite.experimental.OpResolverType"),
)

# Every key an action accepts, with its default; the default's type is the type it must have.
# A key whose default is "" must be given.
_MODEL_KEYS: dict[str, Any] = {"model": "", "threads": 1, "delegate": "xnnpack"}
_REQUEST_KEYS: dict[str, dict[str, Any]] = {
    "describe": {},
    "inspect": _MODEL_KEYS,
    "bench": {
        **_MODEL_KEYS,
        "warmup_runs": 10,
        "min_warmup_seconds": 0.5,
        "runs": 128,
        "max_seconds": 10.0,
        "seed": 0,
        "input_low": 0.0,
        "input_high": 1.0,
    },
    "predict": {**_MODEL_KEYS, "inputs": "", "outputs": ""},
}
# What a loader says when an address space is full: the dynamic linker's words, the errno of a
# refused mmap, and XNNPACK's, which packs the weights once more after it has accepted the graph.
_MEMORY_SIGNS = (
    "failed to map segment",
    "llocate memory",
    "bad_alloc",
    "error '12'",
    "failed to create XNNPACK runtime",
)

_LOWEST = {"threads": 1, "runs": 1, "input_low": -math.inf, "input_high": -math.inf}  # others: 0
_CHOICES = {
    "runtime": ["any", *(runtime[0] for runtime in _RUNTIMES)],
    "delegate": ["xnnpack", "none"],
}


class MeasureError(Exception):
    """A request that cannot be answered; becomes the "error" of the result."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = " ".join(message.split())


class Runtime(NamedTuple):
    """The interpreter that was chosen."""

    name: str
    version: str
    interpreter: Callable[..., Any]
    op_resolvers: Any
    import_ms: float


class LoadedModel(NamedTuple):
    """An interpreter with its tensors allocated; `inputs` and `outputs` by their public names."""

    interpreter: Any
    signature: str | None
    inputs: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, Any]]
    cold_start_ms: float


@dataclass(frozen=True)
class Node:
    """One operation of the model's graph."""

    index: int
    op: str
    dtypes: str
    is_integer: bool
    is_delegated: bool


# --- the four actions -----------------------------------------------------------------------------


def describe(request: Mapping[str, Any], runtime: Runtime) -> dict[str, Any]:
    """Return what this machine is. What cannot be read here is None."""
    return {
        "platform": platform.platform(),
        "system": platform.system(),
        "arch": platform.machine(),
        "board": _read_text("/proc/device-tree/model"),
        "cpu_model": _cpu_model(),
        "logical_cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "memory_bytes": _memory_bytes(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "import_ms": runtime.import_ms,
        "conditions": _conditions(),
    }


def inspect(request: Mapping[str, Any], runtime: Runtime) -> dict[str, Any]:
    """Return what the file contains, and what of it the delegate took.

    Nodes are those of the primary graph; the bodies of control-flow operations are not entered.
    """
    file = _file_facts(request["model"])
    model = _load(request, runtime)
    nodes, partitions = _nodes(model.interpreter)
    groups: dict[tuple[str, str], Counter[str]] = {}
    for node in nodes:
        group = groups.setdefault((node.op, node.dtypes), Counter(count=0, delegated=0))
        group.update(count=1, delegated=int(node.is_delegated))
    return {
        **file,
        "signature": model.signature,
        "inputs": [_tensor_facts(*item) for item in model.inputs.items()],
        "outputs": [_tensor_facts(*item) for item in model.outputs.items()],
        "ops": [{"name": op, "dtypes": dtypes, **group} for (op, dtypes), group in groups.items()],
        **_setup_facts(request, nodes, partitions),
        "undelegated": _listed(node for node in nodes if not node.is_delegated),
        "integer_nodes": sum(node.is_integer for node in nodes),
        "non_integer": _listed(node for node in nodes if not node.is_integer),
    }


def bench(request: Mapping[str, Any], runtime: Runtime) -> dict[str, Any]:
    """Time the interpreter's invoke call on random inputs, one sample at a time."""
    file = _file_facts(request["model"])
    started_at, conditions_before = _utc_now(), _conditions()
    resident_bytes = _proc_status_bytes("VmRSS")
    model = _load(request, runtime)
    _require_fixed_shapes(model)
    rng = np.random.default_rng(request["seed"])
    for name, details in model.inputs.items():
        model.interpreter.set_tensor(details["index"], _random_input(rng, name, details, request))
    first_ms = _invoke_ms(model.interpreter)
    warmup = _repeat(
        model.interpreter,
        request["warmup_runs"],
        request["max_seconds"],
        min_seconds=request["min_warmup_seconds"],
    )
    series = _repeat(model.interpreter, request["runs"], request["max_seconds"])
    peak_bytes = _peak_memory_bytes()
    finished_at, conditions_after = _utc_now(), _conditions()
    return {
        **file,
        **_setup_facts(request, *_nodes(model.interpreter)),
        "latency_ms": summarize(series),
        "series_ms": series,
        "runs": len(series),
        "runs_requested": request["runs"],
        "stopped_early": len(series) < request["runs"],
        "warmup_runs": len(warmup),
        "warmup_runs_requested": request["warmup_runs"],
        "warmup_ms": sum(warmup),
        "import_ms": runtime.import_ms,
        "cold_start_ms": model.cold_start_ms,
        "first_inference_ms": first_ms,
        "peak_memory_bytes": peak_bytes,
        "model_memory_bytes": (
            None if peak_bytes is None or resident_bytes is None else peak_bytes - resident_bytes
        ),
        "seed": request["seed"],
        "protocol": _protocol(request, runtime),
        "conditions_before": conditions_before,
        "conditions_after": conditions_after,
        "started_at": started_at,
        "finished_at": finished_at,
    }


def predict(request: Mapping[str, Any], runtime: Runtime) -> dict[str, Any]:
    """Run every sample of the "inputs" .npz, and write the "outputs" .npz.

    One sample is a tensor of the model without its leading axis of 1. An array of N samples is
    therefore [N, ...] for a tensor of [1, ...].
    """
    file = _file_facts(request["model"])
    model = _load(request, runtime)
    _require_fixed_shapes(model)
    try:
        arrays = read_arrays(request["inputs"])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MeasureError(
            "bad-input", f"expected an .npz without pickled objects, received one with: {error}"
        ) from None
    samples = _check_inputs(model, arrays)
    started = time.perf_counter()
    outputs, invoke_ms = _predict_all(model, arrays, samples)
    seconds = time.perf_counter() - started
    write_arrays(request["outputs"], outputs)
    return {
        **file,
        **_setup_facts(request, *_nodes(model.interpreter)),
        "samples": samples,
        "seconds": seconds,
        "invoke_ms": invoke_ms,
        "outputs": [_tensor_facts(*item) for item in model.outputs.items()],
    }


_ACTIONS: dict[str, Callable[[Mapping[str, Any], Runtime], dict[str, Any]]] = {
    "describe": describe,
    "inspect": inspect,
    "bench": bench,
    "predict": predict,
}


# --- the request ----------------------------------------------------------------------------------


def _check_request(received: Any) -> dict[str, Any]:
    """Return the request with every default filled in."""
    action = received.get("action") if isinstance(received, dict) else None
    if not isinstance(action, str) or action not in _REQUEST_KEYS:
        raise _bad_request(f'an object with "action" one of {sorted(_REQUEST_KEYS)}', action)
    defaults = {"action": "", "runtime": "any", **_REQUEST_KEYS[action]}
    unknown = sorted(set(received) - set(defaults))
    if unknown:
        raise _bad_request(f"only the keys {sorted(defaults)} with {action}", unknown)
    request = {**defaults, **received}
    for key, default in defaults.items():
        _check_value(key, request[key], default)
    if "input_low" in request and not request["input_low"] < request["input_high"]:
        raise _bad_request(
            "input_low below input_high", (request["input_low"], request["input_high"])
        )
    return request


def _check_value(key: str, value: Any, default: Any) -> None:
    if isinstance(default, str):
        if not isinstance(value, str) or not value:
            raise _bad_request(f"{key} as a text that is not empty", value)
        if value not in _CHOICES.get(key, [value]):
            raise _bad_request(f"{key} one of {_CHOICES[key]}", value)
        return
    is_integer = isinstance(default, int)
    lowest = _LOWEST.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int if is_integer else (int, float)):
        raise _bad_request(f"{key} as {'an integer' if is_integer else 'a number'}", value)
    if not math.isfinite(value) or value < lowest:
        raise _bad_request(f"{key} finite and at least {lowest}", value)


def _bad_request(expected: str, received: Any) -> MeasureError:
    return MeasureError(
        "bad-request", f"expected {expected}, received {received!r}; fix the request"
    )


# --- the interpreter ------------------------------------------------------------------------------


def _choose_runtime(wanted: str) -> Runtime:
    """Import the first interpreter that is installed, or the one that was asked for."""
    reasons: dict[str, str] = {}
    broken = False
    for name, module_name, interpreter_path, resolvers_path in _RUNTIMES:
        if wanted not in ("any", name):
            continue
        started = time.perf_counter()
        try:
            module = importlib.import_module(module_name)
            interpreter = _attribute(module, interpreter_path)
            resolvers = _attribute(module, resolvers_path)
        # A binary package can fail to load in any way: ImportError, AttributeError, SystemError.
        except Exception as error:
            if _is_memory_error(error):
                raise _out_of_memory(error) from None
            # A module that is missing further inside means that the package itself is there.
            missing = isinstance(error, ModuleNotFoundError) and module_name.startswith(
                str(error.name)
            )
            broken = broken or not missing
            reasons[name] = "not installed" if missing else f"cannot be loaded ({error!r})"
            continue
        import_ms = (time.perf_counter() - started) * 1e3
        return Runtime(name, _version(name, module_name), interpreter, resolvers, import_ms)
    tried = ", ".join(f"{name}: {reason}" for name, reason in reasons.items())
    package = _RUNTIMES[0][0] if wanted == "any" else wanted
    raise MeasureError(
        "broken-interpreter" if broken else "no-interpreter",
        f"expected a TFLite interpreter for {sys.executable}, found none ({tried}); "
        f"run: pip install {package}",
    )


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


def _version(distribution: str, module_name: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # installed under another name, such as a nightly build
        package = sys.modules[module_name.split(".")[0]]
        return str(getattr(package, "__version__", "unknown"))


def _load(request: Mapping[str, Any], runtime: Runtime) -> LoadedModel:
    arguments = {"model_path": request["model"], "num_threads": request["threads"]}
    if request["delegate"] == "none":
        arguments["experimental_op_resolver_type"] = (
            runtime.op_resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
    started = time.perf_counter()
    try:
        interpreter = runtime.interpreter(**arguments)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError, SystemError) as error:
        if _is_memory_error(error):
            raise _out_of_memory(error) from None
        raise _load_failure(error, runtime) from None
    cold_start_ms = (time.perf_counter() - started) * 1e3
    signature, inputs, outputs = _named_tensors(interpreter)
    return LoadedModel(interpreter, signature, inputs, outputs, cold_start_ms)


def _is_memory_error(error: Exception) -> bool:
    """Tell whether a library ran out of memory; they say so in many ways."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _MEMORY_SIGNS)


def _out_of_memory(error: BaseException) -> MeasureError:
    return MeasureError(
        "out-of-memory",
        f"expected enough memory to load and run the model, received {error!r}; "
        "free some memory, or take a smaller model or input",
    )


def _load_failure(error: Exception, runtime: Runtime) -> MeasureError:
    text = str(error)
    who = f"{runtime.name} {runtime.version}"
    if isinstance(error, SystemError):
        return MeasureError(
            "broken-interpreter",
            f"expected {who} to work with numpy {np.__version__}, received: {text}; "
            'a runtime built for numpy 1 needs: pip install "numpy<2"',
        )
    if "Didn't find op" in text or "unresolved custom op" in text or "Select TensorFlow" in text:
        return MeasureError(
            "unsupported-op",
            f"expected only operations that {who} has, received: {text}; install a newer runtime, "
            "or convert with the built-in operations only",
        )
    return MeasureError(
        "bad-model",
        f"expected a complete TFLite file, and {who} refused this one: {text}; "
        "compare its size and sha256 with the original, then copy or export it again",
    )


def _named_tensors(interpreter: Any) -> tuple[str | None, dict[str, Any], dict[str, Any]]:
    """Return the signature's key, and the tensors' details by the names users know them by.

    The order of get_output_details() need not be the signature's, so names are never assigned by
    position. Without a signature the tensors' own names stand in.
    """
    signatures = list(interpreter.get_signature_list())
    if len(signatures) > 1:
        raise MeasureError(
            "bad-model",
            f"expected one signature at most, received {signatures}; export each to its own file",
        )
    if signatures:
        # The runner must not outlive this function: while it holds on to the native object,
        # invoke() refuses to run.
        runner = interpreter.get_signature_runner(signatures[0])
        return signatures[0], runner.get_input_details(), runner.get_output_details()
    named = []
    for tensors in (interpreter.get_input_details(), interpreter.get_output_details()):
        named.append({details["name"]: details for details in tensors})
        if len(named[-1]) < len(tensors):
            names = [details["name"] for details in tensors]
            raise MeasureError(
                "bad-model", f"expected tensors with different names, received {names}"
            )
    return None, named[0], named[1]


def _nodes(interpreter: Any) -> tuple[list[Node], int]:
    """Return the model's own nodes, and how many partitions of them a delegate runs.

    A delegate appends one DELEGATE node per partition to the list and leaves the nodes that it
    replaced where they were. Those are found by walking from the partition's outputs back to
    its inputs.
    """
    ops = interpreter._get_ops_details()
    partitions = [op for op in ops if op["op_name"] == "DELEGATE"]
    ops = [op for op in ops if op["op_name"] != "DELEGATE"]
    producer = {int(tensor): op for op in ops for tensor in op["outputs"]}
    replaced: set[int] = set()
    for partition in partitions:
        inputs = {int(tensor) for tensor in partition["inputs"]}
        pending = [int(tensor) for tensor in partition["outputs"]]
        while pending:
            tensor = pending.pop()
            if tensor in inputs or tensor not in producer:
                continue
            op = producer[tensor]
            if op["index"] not in replaced:
                replaced.add(op["index"])
                pending.extend(int(tensor) for tensor in op["inputs"])
    # Constants are neither the graph's inputs nor any node's outputs, and do not flow.
    flowing = {int(details["index"]) for details in interpreter.get_input_details()}
    flowing.update(producer)
    dtypes = {
        int(details["index"]): np.dtype(details["dtype"])
        for details in interpreter.get_tensor_details()
        if int(details["index"]) in flowing
    }
    return [_node(op, dtypes, op["index"] in replaced) for op in ops], len(partitions)


def _node(op: Mapping[str, Any], dtypes: Mapping[int, np.dtype[Any]], is_delegated: bool) -> Node:
    """Describe a node by the types of what flows through it: `dtypes`, by tensor index."""
    operands = [dtypes[int(tensor)] for tensor in op["inputs"] if int(tensor) in dtypes]
    results = [dtypes[int(tensor)] for tensor in op["outputs"] if int(tensor) in dtypes]
    before = "+".join(sorted({dtype.name for dtype in operands}))
    after = "+".join(sorted({dtype.name for dtype in results}))
    return Node(
        index=int(op["index"]),
        op=str(op["op_name"]),
        dtypes=after if before in ("", after) else f"{before}->{after}",
        is_integer=bool(results) and all(dtype.kind in "iub" for dtype in operands + results),
        is_delegated=is_delegated,
    )


def _setup_facts(request: Mapping[str, Any], nodes: list[Node], partitions: int) -> dict[str, Any]:
    return {
        "threads": request["threads"],
        "delegate": request["delegate"],
        "nodes": len(nodes),
        "delegated_nodes": sum(node.is_delegated for node in nodes),
        "delegate_partitions": partitions,
    }


def _listed(nodes: Iterable[Node]) -> list[dict[str, Any]]:
    return [{"index": node.index, "op": node.op, "dtypes": node.dtypes} for node in nodes]


def _tensor_facts(name: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """Describe an input or output; scale and zero_point are None unless there is one of each."""
    scales = details["quantization_parameters"]["scales"]
    zero_points = details["quantization_parameters"]["zero_points"]
    quantized = len(scales) == 1
    return {
        "name": name,
        "tensor_name": details["name"],
        "shape": [int(size) for size in details["shape"]],
        "shape_signature": [int(size) for size in details["shape_signature"]],
        "dtype": np.dtype(details["dtype"]).name,
        "scale": float(scales[0]) if quantized else None,
        "zero_point": int(zero_points[0]) if quantized else None,
    }


def _require_fixed_shapes(model: LoadedModel) -> None:
    for name, details in model.inputs.items():
        shape = [int(size) for size in details["shape_signature"]]
        if min(shape[1:], default=1) < 0:
            raise MeasureError(
                "bad-model",
                f"expected fixed sizes, input {name!r} has {shape}; "
                "convert the model with a fixed input shape",
            )


# --- running and timing ---------------------------------------------------------------------------


def _invoke_ms(interpreter: Any) -> float:
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


def _repeat(
    interpreter: Any, runs: int, max_seconds: float, min_seconds: float = 0.0
) -> list[float]:
    """Invoke until both `runs` and `min_seconds` are reached, or `max_seconds` have passed."""
    series: list[float] = []
    started = time.perf_counter()
    gc.disable()  # a collection in the middle of a run would be counted as the model's time
    try:
        while True:
            elapsed = time.perf_counter() - started
            enough = len(series) >= runs and elapsed >= min_seconds
            if enough or (series and elapsed >= max_seconds):
                return series
            series.append(_invoke_ms(interpreter))
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
        "garbage collection off. First one run, then warm-up, neither counted; both warm-up and "
        f"measurement end early after {request['max_seconds']} s. Percentiles interpolate "
        "linearly. cold_start_ms is creating the interpreter from a "
        "file in the system's cache and allocating its tensors; "
        "import_ms is importing it. Peak memory is the process' peak resident set; the model's "
        "part is that minus the resident set just before loading."
    )


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
    invoke_ms = []
    for sample in range(samples):
        for name, details in model.inputs.items():
            value = arrays[name][sample].reshape(details["shape"])
            interpreter.set_tensor(details["index"], value)
        invoke_ms.append(_invoke_ms(interpreter))
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
    return outputs, invoke_ms


# --- files ----------------------------------------------------------------------------------------


def _file_facts(model: str) -> dict[str, Any]:
    """Return the file's size and hash, after making sure that it can be a TFLite file at all.

    Older interpreters follow the offsets of any file without a check, and crash.
    """
    path = Path(model)
    if not path.is_file():
        raise MeasureError("bad-request", f"expected a model file, {model} does not exist")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        head = file.read(8)
        digest.update(head)
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    size = path.stat().st_size
    if head[4:8] != b"TFL3" or int.from_bytes(head[:4], "little") >= size:
        raise MeasureError(
            "bad-model",
            f"expected a TFLite file (bytes 4 to 7 are TFL3), received {size} bytes that start "
            f"with {head!r}; convert the model to .tflite, or copy it again",
        )
    return {"sha256": digest.hexdigest(), "size_bytes": size}


def read_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read an .npz by name. Anything else, and pickled objects, are refused with a ValueError."""
    archive = np.load(path, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{path} holds a single array without a name")
    with archive:
        return {name: archive[name] for name in archive.files}


def write_arrays(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz, whole or not at all. Unlike numpy.savez it takes any name, and no objects."""
    temporary = Path(f"{path}.tmp")
    with zipfile.ZipFile(str(temporary), "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    temporary.replace(path)


def _write_json(path: str, content: Mapping[str, Any]) -> None:
    temporary = Path(f"{path}.tmp")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


# --- the machine ----------------------------------------------------------------------------------


def _read_text(path: str | Path) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _cpu_model() -> str | None:
    for line in (_read_text("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or None


def _usable_cores() -> int | None:
    # Not on every platform, and not known to type checkers where it is missing.
    affinity = getattr(os, "sched_getaffinity", None)
    return None if affinity is None else len(affinity(0))


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _conditions() -> dict[str, Any]:
    """Return what makes a machine slow for a while; None for what it does not tell."""
    cores = "cpu[0-9]*/cpufreq/scaling_"
    governors = _read_all("/sys/devices/system/cpu", cores + "governor")
    kilohertz = _numbers(_read_all("/sys/devices/system/cpu", cores + "cur_freq"))
    millidegrees = _numbers(_read_all("/sys/class/thermal", "thermal_zone*/temp"))
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        load = None
    return {
        "governor": "+".join(sorted(set(governors))) or None,
        "frequency_mhz": max(kilohertz) / 1e3 if kilohertz else None,
        "temperature_celsius": max(millidegrees) / 1e3 if millidegrees else None,
        "load_average_1min": load,
    }


def _read_all(folder: str, pattern: str) -> list[str]:
    texts = [_read_text(path) for path in sorted(Path(folder).glob(pattern))]
    return [text for text in texts if text is not None]


def _numbers(texts: list[str]) -> list[int]:
    return [int(text) for text in texts if text.isdigit()]


def _peak_memory_bytes() -> int | None:
    """Return the largest resident set this process has had.

    Linux hands the parent's peak on to a child's ru_maxrss, so /proc is asked first.
    """
    peak = _proc_status_bytes("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _proc_status_bytes(field: str) -> int | None:
    for line in (_read_text("/proc/self/status") or "").splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return int(value.split()[0]) * 1024
    return None


def _utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


# --- the program ----------------------------------------------------------------------------------


def _answer(request_file: str) -> dict[str, Any]:
    try:
        received = json.loads(Path(request_file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MeasureError(
            "bad-request", f"expected a JSON file, {request_file}: {error}"
        ) from None
    request = _check_request(received)
    runtime = _choose_runtime(request["runtime"])
    result = _ACTIONS[request["action"]](request, runtime)
    return {
        "action": request["action"],
        "runtime": {"name": runtime.name, "version": runtime.version},
        **result,
    }


def main(arguments: list[str]) -> int:
    """Answer the request in the first file into the second; return the exit status."""
    if len(arguments) != 2:
        print("usage: python measure.py REQUEST.json RESULT.json", file=sys.stderr)
        return 2
    request_file, result_file = arguments
    try:
        _write_json(result_file, _answer(request_file))
        return 0
    except MeasureError as error:
        failure = error
    except MemoryError as error:
        failure = _out_of_memory(error)
    _write_json(result_file, {"error": {"kind": failure.kind, "message": failure.message}})
    return FAILURE_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
